// A page's program: what it sees is in `window.seen`.

import { MarketFeed } from './book.js';

const seen = { trades: [], batches: 0, states: [], reconnecting: 0 };
const port = new URLSearchParams(location.search).get('port');
const feed = new MarketFeed(`ws://127.0.0.1:${port}/`, {
  backoffBase: 2 ** 30, // it comes back when it is told to, or never
  backoffMost: 2 ** 30,
  environment: { random: () => 0.99 },
});
feed.on('state', ({ state }) => seen.states.push(state));
feed.on('reconnecting', () => { seen.reconnecting += 1; });
feed.batch('trade@TATA_INR', (batch) => {
  seen.batches += 1;
  seen.trades.push(...batch.map(({ t }) => t));
});
feed.book('TATA_INR').on('frame', (book) => { seen.book = { state: book.state, bids: book.bids() }; });
window.seen = seen;
