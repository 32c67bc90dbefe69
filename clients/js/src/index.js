// The client of marketfeed, without the order book: see book.js for both.

export { EVENTS, MarketFeed } from './feed.js';
export { FeedError } from './errors.js';
