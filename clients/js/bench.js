// How many messages a second the client takes, beside what JSON.parse takes alone: `node bench.js [ROUNDS]`.
//
// A server in a process of its own sends trades as fast as a connection takes them; three clients come in turn, each in
// this process: the bare package ws with JSON.parse, a handler of the feed, and its batches. Beside what passed in a second
// stands what would have passed in a second of this process's own time, which other work on the machine disturbs less.

import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { WebSocket, WebSocketServer } from 'ws';
import { MarketFeed } from './src/index.js';

const MESSAGES = 400_000;
const STREAM = 'trade@TATA_INR';
const ROUNDS = Number(process.argv[2] ?? 5);

function serve() {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', perMessageDeflate: false }, () => {
    process.send?.(server.address().port);
  });
  server.on('connection', (socket) => {
    const data = '{"e":"trade","t":1790000,"m":false,"p":"1000.50","q":"10","s":"TATA_INR","E":1790000000000}';
    let sent = 0;
    const send = () => {
      const raw = socket._socket;
      while (sent < MESSAGES && raw.writableLength < 4_194_304) {
        raw.cork();
        for (let each = 0; each < 256 && sent < MESSAGES; each += 1) {
          sent += 1;
          socket.send(`{"stream":"${STREAM}","data":${data},"offset":"k7x2m9q4-${sent}"}`);
        }
        raw.uncork();
      }
      if (sent < MESSAGES) setImmediate(send);
    };
    socket.on('message', (text) => {
      const { id, method } = JSON.parse(text);
      socket.send(`{"stream":"!reply","data":{"e":"reply","id":${id},"result":null}}`);
      if (method === 'SUBSCRIBE') send();
    });
    socket.on('error', () => {});
  });
}

/** `each` is called with how many messages have come. */
const clients = {
  'ws and JSON.parse': (url, each) => {
    const socket = new WebSocket(url, { perMessageDeflate: false });
    socket.onopen = () => socket.send(JSON.stringify({ method: 'SUBSCRIBE', params: [STREAM], id: 1 }));
    socket.onmessage = ({ data }) => {
      if (JSON.parse(data).stream === STREAM) each(1);
    };
    return () => socket.close();
  },
  'feed.on': (url, each) => {
    const feed = new MarketFeed(url, { WebSocket: Plain });
    feed.on(STREAM, () => each(1));
    return () => feed.close();
  },
  'feed.batch': (url, each) => {
    const feed = new MarketFeed(url, { WebSocket: Plain });
    feed.batch(STREAM, (batch) => each(batch.length));
    return () => feed.close();
  },
};

class Plain extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, { perMessageDeflate: false });
  }
}

/** Messages a second, from the first one to the last. */
function measure(client, url) {
  return new Promise((resolve) => {
    let count = 0;
    let begun = 0;
    let used;
    const end = client(url, (more) => {
      begun ||= performance.now();
      used ??= process.cpuUsage();
      count += more;
      if (count < MESSAGES) return;
      const { user, system } = process.cpuUsage(used);
      end();
      resolve({ passed: count / ((performance.now() - begun) / 1000), own: count / ((user + system) / 1e6) });
    });
  });
}

async function compare() {
  const server = fork(fileURLToPath(import.meta.url), ['--serve']);
  const port = await new Promise((resolve) => server.once('message', resolve));
  const figures = Object.fromEntries(Object.keys(clients).map((name) => [name, []]));
  for (let round = 0; round <= ROUNDS; round += 1) {
    for (const [name, client] of Object.entries(clients)) {
      const figure = await measure(client, `ws://127.0.0.1:${port}/`);
      if (round) figures[name].push(figure); // the first round warms up
    }
  }
  server.kill();
  for (const [name, all] of Object.entries(figures)) {
    const [passed, own] = ['passed', 'own'].map((which) => ordered(all.map((each) => each[which])));
    console.log(`${name}: ${passed[ROUNDS >> 1]} messages/s, median of ${ROUNDS}; ${passed[0]} to ${passed.at(-1)}`);
    console.log(`  in a second of its own time ${own[ROUNDS >> 1]}; ${own[0]} to ${own.at(-1)}`);
  }
}

function ordered(figures) {
  return figures.map(Math.round).sort((one, other) => one - other);
}

if (process.argv[2] === '--serve') serve();
else await compare();
