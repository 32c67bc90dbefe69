// The client in a process of its own: it follows what its arguments name, and prints a line of JSON for each event.
//
//   node driver.mjs CLIENT URL STREAM …    CLIENT: the module; with book:MARKET as a stream, the states of a book

import { createRequire } from 'node:module';

const [client, url, ...streams] = process.argv.slice(2);
const { EVENTS, MarketFeed } = await import(client);
const { WebSocket } = createRequire(client)('ws');
const feed = new MarketFeed(url, { WebSocket, backoffBase: 20, backoffMost: 200 });
const say = (line) => console.log(JSON.stringify(line));

for (const name of EVENTS) {
  if (name === 'message') continue;
  feed.on(name, (event) => say([name, event instanceof Error ? { kind: event.kind, final: event.final, code: event.code } : event]));
}
for (const stream of streams) {
  if (stream.startsWith('book:')) {
    feed.book(stream.slice(5)).on('change', (book) => say(['book', { state: book.state, u: book.lastUpdateId ?? null, bids: book.bids(2) }]));
  } else feed.on(stream, (data, { past }) => say(['data', { t: data.t, past: past ?? false }]));
}
process.stdin.on('end', () => feed.close());
process.stdin.resume();
