// The JavaScript client in a process of its own, for clients/conformance/README.md: commands come in as lines of JSON,
// and what the client tells goes out as lines of JSON. Nothing is expected here.
//
//   node javascript.mjs CLIENT    CLIENT: the module book.js

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const [client] = process.argv.slice(2);
const { EVENTS, MarketFeed, FeedError } = await import(client);
const { WebSocket } = createRequire(client)('ws');

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const settled = () => new Promise((resolve) => setImmediate(resolve));

/** A clock that is moved by hand, chance that is said, and pictures that are drawn when they are asked for. */
class World {
  time = 0;
  #chances = [];
  #usual = 0;
  #timers = new Map();
  #last = 0;
  #frames = new Set();
  #watchers = new Set();

  constructor({ time, random = [0] }) {
    this.time = time;
    this.#usual = random.at(-1);
    this.#chances = random.slice(0, -1);
  }

  environment() {
    return {
      now: () => this.time,
      random: () => this.#chances.shift() ?? this.#usual,
      setTimeout: (callback, delay) => {
        this.#last += 1;
        this.#timers.set(this.#last, { at: this.time + delay, callback });
        return this.#last;
      },
      clearTimeout: (timer) => this.#timers.delete(timer),
      frame: (callback) => {
        this.#frames.add(callback);
        return () => this.#frames.delete(callback);
      },
      watch: (callback) => {
        this.#watchers.add(callback);
        return () => this.#watchers.delete(callback);
      },
    };
  }

  async pass(delay) {
    const end = this.time + delay;
    await settled();
    for (;;) {
      const due = [...this.#timers].filter(([, { at }]) => at <= end).sort(([, one], [, other]) => one.at - other.at)[0];
      if (!due) break;
      const [timer, { at, callback }] = due;
      this.#timers.delete(timer);
      this.time = Math.max(this.time, at);
      callback();
      await settled();
    }
    this.time = end;
  }

  draw() {
    const frames = [...this.#frames];
    this.#frames.clear();
    for (const frame of frames) frame();
  }

  wake() {
    for (const watcher of [...this.#watchers]) watcher();
  }
}

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
let world;
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
  start({ url, urls, token, options = {}, time, random, clock }) {
    const real = clock === 'real';
    if (!real) world = new World({ time, random });
    const given = { WebSocket, ...options, ...(real ? {} : { environment: world.environment() }) };
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
  advance: ({ ms }) => world.pass(ms),
  draw: () => world.draw(),
  sync: () => {},
  mark: ({ text }) => tell({ event: 'mark', text }),
  wake: () => world.wake(),
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
