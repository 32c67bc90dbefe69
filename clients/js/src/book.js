// The client of marketfeed with the order book: `feed.book('TATA_INR')` is as the engine's, or says that it is not.
//
// 1. A book begins with the state that follows a SUBSCRIBE, and goes on with each message: a whole book replaces it.
// 2. A lost connection or an open gap makes it stale. It is live again when everything that was missed has come, or with
//    a whole book.
// 3. Whatever leaves out an update makes it missing: a gap that is not made good, a jump of its ids, a message that is
//    no depth message.
// 4. Whoever asks for the book of one market shares it.

import { MarketFeed as Feed } from './feed.js';
import { Ladder } from './ladder.js';
import { entryOf } from './settings.js';

export { EVENTS } from './feed.js';
export { FeedError } from './errors.js';

/** @typedef {import('./types.js').Depth} Depth */
/** @typedef {import('./types.js').Level} Level */
/** @typedef {import('./types.js').Message} Message */

/**
 * How good a book is. `live`: it is the engine's. `stale`: it is that of an earlier moment, for the connection is lost,
 * or a gap is open, or what was missed has not all come yet. `missing`: there is none; it comes with the engine's next
 * whole book.
 *
 * @typedef {'live' | 'stale' | 'missing'} BookState
 */

/** What is known of one book, for all who follow it. */
class Follower {
  ladder = new Ladder();
  /** @type {BookState} */
  state = 'missing';
  /** @type {number | undefined} */
  lastUpdateId;
  /** @type {Set<() => void>} Called at each change. */
  listeners = new Set();
  #hasOffsets = false;
  #isInGap = false;
  #stops;

  /**
   * @param {Feed} feed
   * @param {string} stream
   */
  constructor(feed, stream) {
    this.#stops = [
      feed.on(stream, (data, message) => this.#take(/** @type {any} */ (data), message)),
      feed.on('state', ({ state }) => {
        if (state === 'open') return;
        this.#isInGap = false; // a gap that lasts is told again
        this.#doubt();
      }),
      feed.on('gap', ({ streams, reason, to }) => {
        if (!streams.includes(stream)) return;
        if (reason === 'sequence' || reason === 'not-recovered') this.#lose();
        else {
          this.#isInGap = to === null;
          this.#doubt();
        }
        if (to !== null && this.state === 'stale' && !this.#hasOffsets) feed.refresh(stream);
      }),
      feed.on('recovered', (event) => {
        if (event.stream !== stream || !event.recovered || this.#isInGap) return;
        if (this.state === 'stale') this.#change('live');
      }),
    ];
    feed.refresh(stream); // its state, where somebody listens to the stream already
  }

  end() {
    for (const stop of this.#stops) stop();
  }

  /**
   * @param {Depth} data
   * @param {Message} message
   */
  #take(data, { offset, past }) {
    const { U, u, snapshot } = data;
    if (!snapshot && this.state === 'missing') return;
    const last = this.lastUpdateId;
    if (!snapshot && U !== undefined && last !== undefined && U > last + 1) {
      this.#lose();
      return;
    }
    this.#hasOffsets = offset !== undefined;
    try {
      this.ladder.apply(data);
    } catch {
      this.ladder.clear();
      this.#lose();
      return;
    }
    this.lastUpdateId = u;
    this.#change(!snapshot ? this.state : past ? 'stale' : 'live');
  }

  #doubt() {
    if (this.state === 'live') this.#change('stale');
  }

  #lose() {
    if (this.state === 'missing') return;
    this.ladder.clear();
    this.lastUpdateId = undefined;
    this.#change('missing');
  }

  /** @param {BookState} state */
  #change(state) {
    this.state = state;
    for (const listener of [...this.listeners]) listener();
  }
}

/** The order book of one market. */
export class Book {
  #market;
  #follower;
  /** @type {Set<() => void>} */
  #stops = new Set();
  #listen;
  #leave;

  /**
   * Made by `feed.book`.
   *
   * @param {string} market
   * @param {Follower} follower
   * @param {(when: 'change' | 'frame', handler: (book: Book) => unknown, book: Book) => () => void} listen
   * @param {() => void} leave
   */
  constructor(market, follower, listen, leave) {
    this.#market = market;
    this.#follower = follower;
    this.#listen = listen;
    this.#leave = leave;
  }

  /** The market's name. */
  get market() {
    return this.#market;
  }

  /** How good it is. */
  get state() {
    return this.#follower.state;
  }

  /** The id of the last change that is in it, where the engine gives ids. */
  get lastUpdateId() {
    return this.#follower.lastUpdateId;
  }

  /** How many levels there are on both sides. */
  get size() {
    return this.#follower.ladder.size;
  }

  /**
   * The best bids, the highest price first. While it is missing there are none.
   *
   * @param {number} [count] How many at most; all of them if not given.
   * @returns {Level[]}
   */
  bids(count = Infinity) {
    return this.#follower.ladder.bids(count);
  }

  /**
   * The best asks, the lowest price first.
   *
   * @param {number} [count]
   * @returns {Level[]}
   */
  asks(count = Infinity) {
    return this.#follower.ladder.asks(count);
  }

  /**
   * Hear of changes, of levels or of the state.
   *
   * @param {'change' | 'frame'} when At each, or once when the next picture is drawn.
   * @param {(book: Book) => unknown} handler
   * @returns {() => void} Ends it.
   */
  on(when, handler) {
    if (when !== 'change' && when !== 'frame') throw new TypeError(`expected change or frame, not ${when}`);
    const stop = this.#listen(when, handler, this);
    this.#stops.add(stop);
    return () => {
      stop();
      this.#stops.delete(stop);
    };
  }

  /** Follow it no more. */
  close() {
    for (const stop of this.#stops) stop();
    this.#stops.clear();
    this.#leave();
    this.#leave = () => {};
  }
}

/** The feed with order books. */
export class MarketFeed extends Feed {
  /** @type {Map<string, {follower: Follower, users: number}>} */
  #followers = new Map();

  /**
   * The order book of a market, which is followed until it is closed.
   *
   * @param {string} market
   * @param {{rate?: '100ms' | '1000ms'}} [options] `rate`: at most one message in so long, which makes the same book.
   * @returns {Book}
   */
  book(market, { rate } = {}) {
    if (typeof market !== 'string' || !/^[^@!]+$/.test(market)) {
      throw new TypeError(`book: expected a market, as TATA_INR, not ${market}`);
    }
    const stream = `depth@${market}${rate ? `@${rate}` : ''}`;
    const shared = this.#followers.get(stream) ?? { follower: new Follower(this, stream), users: 0 };
    this.#followers.set(stream, shared);
    shared.users += 1;
    return new Book(
      market,
      shared.follower,
      (when, handler, book) => this.#listen(shared.follower, when, handler, book),
      () => {
        shared.users -= 1;
        if (shared.users) return;
        shared.follower.end();
        this.#followers.delete(stream);
      },
    );
  }

  /**
   * @param {Follower} follower
   * @param {'change' | 'frame'} when
   * @param {(book: Book) => unknown} handler
   * @param {Book} book
   */
  #listen({ listeners }, when, handler, book) {
    const entry = entryOf(when, handler);
    const call = () => this.call(entry, book);
    const listener = when === 'frame' ? () => this.state !== 'closed' && this.frames.add(call) : call;
    listeners.add(listener);
    return () => {
      entry.isActive = false;
      listeners.delete(listener);
      this.frames.drop(call);
    };
  }
}
