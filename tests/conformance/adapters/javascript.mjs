// The JavaScript client in a process of its own, for clients/conformance/README.md: commands come in as lines of JSON,
// and what the client tells goes out as lines of JSON. Nothing is expected here.
//
//   node javascript.mjs CLIENT    CLIENT: the module book.js

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { Surroundings, settled } from '../../../clients/js/test/surroundings.js';

const [client] = process.argv.slice(2);
const { EVENTS, MarketFeed, FeedError } = await import(client);
const { WebSocket } = createRequire(client)('ws');

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

function plain(error) {
  if (!(error instanceof FeedError)) return { kind: error.name };
  const { kind, final, code, stream } = error;
  return { kind, final, ...(code !== undefined && { code }), ...(stream !== undefined && { stream }) };
}

/** A function that gives one answer after the other, the last one again and again. */
function answers(name, list) {
  let count = 0;
  return async () => {
    const answer = list[Math.min(count, list.length - 1)];
    count += 1;
    say({ event: 'asked', for: name });
    if (answer?.fails) throw Object.assign(new Error(answer.fails), { final: answer.final });
    return answer;
  };
}

const askable = (name, value) => (Array.isArray(value) ? answers(name, value) : value);

let feed;
let surroundings;
let isOver = false;
const stops = new Map();
const loops = new Map();
const books = new Map();

const tell = (line) => isOver || say(line);

function deliver(to) {
  return (data, { offset, past }) => {
    tell({ event: 'data', to, data, ...(offset !== undefined && { offset }), ...(past && { past }) });
    if (data.fails) throw new Error('as the scenario says');
  };
}

const shown = (book) => ({ state: book.state, u: book.lastUpdateId ?? null, bids: book.bids(), asks: book.asks() });

const commands = {
  start({ url, urls, token, options = {}, time, random = [0], clock }) {
    const real = clock === 'real';
    if (!real) surroundings = new Surroundings({ time, chances: random.slice(0, -1), usual: random.at(-1) });
    const given = { WebSocket, ...options, ...(real ? {} : { environment: surroundings.environment }) };
    if (token !== undefined) given.token = askable('token', token);
    feed = new MarketFeed(urls ? answers('url', urls.map((each) => (each === true ? url : each))) : url, given);
    for (const name of EVENTS) {
      if (name === 'message') continue;
      feed.on(name, (event) => tell({ event: name, ...(event instanceof FeedError ? plain(event) : event) }));
    }
  },
  on: ({ stream, to, rewind }) => void stops.set(to, feed.on(stream, deliver(to), rewind ? { rewind } : {})),
  batch({ stream, to, rewind }) {
    stops.set(to, feed.batch(stream, (list) => tell({ event: 'batch', to, list }), rewind ? { rewind } : {}));
  },
  stop: ({ to }) => stops.get(to)(),
  loop({ stream, to, limit }) {
    const queue = feed.stream(stream, { limit });
    loops.set(to, queue);
    take(queue, to);
  },
  take: ({ to }) => void take(loops.get(to), to),
  dropped: ({ to }) => tell({ event: 'dropped', to, count: loops.get(to).dropped }),
  leave: ({ to }) => void loops.get(to).return(),
  history: ({ stream, limit, to }) => void result(to, feed.history(stream, { limit })),
  ready: ({ to }) => void result(to, feed.ready().then(() => true)),
  refresh: ({ stream }) => feed.refresh(stream),
  book({ market, to, rate }) {
    const book = feed.book(market, rate ? { rate } : {});
    books.set(to, book);
    book.on('change', () => tell({ event: 'book', to, ...shown(book) }));
  },
  look: ({ to }) => tell({ event: 'book', to, ...shown(books.get(to)) }),
  closeBook: ({ to }) => books.get(to).close(),
  close: () => feed.close(),
  advance: ({ ms }) => surroundings.pass(ms),
  draw: () => surroundings.draw(),
  sync: () => {},
  mark: ({ text }) => tell({ event: 'mark', text }),
  wake: () => surroundings.wake(),
  end() {
    isOver = true;
    feed?.close();
  },
};

/** One publication for a loop; a loop that has ended says so. */
function take(queue, to) {
  queue.next().then(
    ({ value, done }) => tell(done ? { event: 'over', to } : { event: 'taken', to, data: value }),
    (error) => tell({ event: 'thrown', to, ...plain(error) }),
  );
}

function result(to, promise) {
  promise.then(
    (value) => tell({ event: 'result', to, value }),
    (error) => tell({ event: 'thrown', to, ...plain(error) }),
  );
}

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  try {
    await commands[command.do](command);
  } catch (error) {
    tell({ event: 'thrown', to: command.to ?? command.do, ...plain(error) });
  }
  await settled();
  say({ done: command.id });
  if (isOver) break;
}
process.exit(0);
