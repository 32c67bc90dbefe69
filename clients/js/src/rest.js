// What was: past candles, trades and books, by the daemon's REST interface (docs/market-data.md#rest).

import { FeedError } from './errors.js';

export { FeedError } from './errors.js';

/** @typedef {import('./types.js').Decimal} Decimal */
/** @typedef {import('./types.js').Level} Level */

/**
 * A candle. Times are in ms since 1970. The last one is that of the present period, which is open.
 *
 * @typedef {object} Candle
 * @property {number} openTime
 * @property {Decimal} open
 * @property {Decimal} high
 * @property {Decimal} low
 * @property {Decimal} close
 * @property {Decimal} volume
 * @property {number} closeTime
 * @property {Decimal} quoteVolume
 * @property {number} trades How many there were.
 * @property {Decimal} takerVolume What takers bought.
 * @property {Decimal} takerQuoteVolume
 */

/**
 * @typedef {{id: number, price: Decimal, qty: Decimal, quoteQty: Decimal, time: number, isBuyerMaker: boolean,
 *   isBestMatch: boolean}} PastTrade
 */

/** @typedef {{lastUpdateId: number, bids: Level[], asks: Level[]}} PastBook */

/**
 * A market: what is traded, `base`, and for what, `quote`. The steps of its prices and quantities are there where the
 * operator has declared them.
 *
 * @typedef {{name: string, base: string, quote: string, priceStep?: Decimal, quantityStep?: Decimal}} Market
 */

const UNAUTHORIZED = 401;
const TEMPORARY = new Set([408, 429]);
const FAULTS = 500;

/** Questions to a daemon. Each may fail with a FeedError: `refused` with the code of the answer, or `not-open`. */
export class MarketRest {
  #base;
  #token;
  #fetch;

  /**
   * @param {string | URL} url Where the daemon is, as `https://feed.example.com/`; ws: and wss: are good, too.
   * @param {{token?: import('./types.js').Askable<string | undefined>, fetch?: typeof globalThis.fetch}} [options]
   */
  constructor(url, { token, fetch = globalThis.fetch } = {}) {
    const base = new URL(url, globalThis.location?.href);
    base.protocol = base.protocol.replace('ws', 'http');
    if (!/^https?:$/.test(base.protocol)) throw new TypeError(`url: expected http: or https:, not ${base.protocol}`);
    this.#base = base;
    this.#token = token;
    this.#fetch = fetch;
  }

  /**
   * The markets that there are, or of those that this client may have.
   *
   * @returns {Promise<Market[]>}
   */
  async markets() {
    const { symbols } = await this.#ask('exchangeInfo', {});
    return symbols.map((/** @type {any} */ { symbol, baseAsset, quoteAsset, filters }) => {
      const { tickSize, stepSize } = Object.assign({}, ...filters);
      return { name: symbol, base: baseAsset, quote: quoteAsset, priceStep: tickSize, quantityStep: stepSize };
    });
  }

  /** The daemon's clock, in ms since 1970. @returns {Promise<number>} */
  async time() {
    return (await this.#ask('time', {})).serverTime;
  }

  /**
   * Candles, oldest first.
   *
   * @param {string} market
   * @param {string} interval As `1m`.
   * @param {{limit?: number, startTime?: number, endTime?: number}} [options] 500 at most if not given, and never more
   *   than 1,000.
   * @returns {Promise<Candle[]>}
   */
  async klines(market, interval, options = {}) {
    /** @type {any[][]} */
    const rows = await this.#ask('klines', { symbol: market, interval, ...options });
    return rows.map(([openTime, open, high, low, close, volume, closeTime, quoteVolume, trades, takerVolume, takerQuoteVolume]) => ({
      openTime, open, high, low, close, volume, closeTime, quoteVolume, trades, takerVolume, takerQuoteVolume,
    }));
  }

  /**
   * The newest trades, oldest first.
   *
   * @param {string} market
   * @param {{limit?: number}} [options]
   * @returns {Promise<PastTrade[]>}
   */
  trades(market, options = {}) {
    return this.#ask('trades', { symbol: market, ...options });
  }

  /**
   * The order book at this moment. One that is followed is `feed.book` of `marketfeed/book`.
   *
   * @param {string} market
   * @param {{limit?: number}} [options] Levels of each side.
   * @returns {Promise<PastBook>}
   */
  depth(market, options = {}) {
    return this.#ask('depth', { symbol: market, ...options });
  }

  /**
   * @param {string} path
   * @param {Record<string, string | number | undefined>} parameters
   * @returns {Promise<any>}
   */
  async #ask(path, parameters) {
    const url = new URL(`api/v3/${path}`, this.#base);
    for (const [name, value] of Object.entries(parameters)) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    const token = typeof this.#token === 'function' ? await this.#token() : this.#token;
    const fetch = this.#fetch;
    let response;
    let body;
    try {
      response = await fetch(url, token ? { headers: { Authorization: `Bearer ${token}` } } : {});
      body = await response.json();
    } catch (cause) {
      throw new FeedError('not-open', `${path}: ${/** @type {any} */ (cause)?.message ?? cause}`, { cause });
    }
    if (response.ok) return body;
    const { status } = response;
    const canRenew = status === UNAUTHORIZED && typeof this.#token === 'function';
    const final = status < FAULTS && !TEMPORARY.has(status) && !canRenew;
    throw new FeedError('refused', body.msg ?? `${path}: ${status}`, { code: body.code, final });
  }
}
