// What users of TypeScript see; only the types are looked at.

import { MarketFeed } from 'marketfeed/book';
import type { FeedError } from 'marketfeed';

export async function usage(): Promise<void> {
  const feed = new MarketFeed('wss://feed.example.com', { token: async () => 'x' });
  const stop: () => void = feed.on('trade@TATA_INR', (trade, message) => {
    const price: string = trade.p;
    const offset: string | undefined = message.offset;
    console.log(price, offset);
  });
  feed.on('gap', ({ streams }) => streams.join());
  feed.on('error', (error: FeedError) => error.final);
  feed.batch('depth@TATA_INR', (batch) => batch[0].a);
  for await (const candle of feed.stream('kline_1m@TATA_INR')) console.log(candle.k.o);
  feed.book('TATA_INR').on('frame', (book) => book.bids(1)[0][0].length);
  // @ts-expect-error: an event has no such field
  feed.on('gap', (gap) => gap.nonsense);
  // @ts-expect-error: neither has a trade
  feed.on('trade@TATA_INR', (trade) => trade.nonsense);
  stop();
}
