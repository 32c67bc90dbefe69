// A datafeed for TradingView's Charting Library: past candles by REST, the present one by WebSocket.
//
// 1. Candles follow one another without a hole, so that history can be counted: back from `to`, in pages.
// 2. A chart takes its last bar once more, or the next one, and nothing older: what comes twice is left out.
// 3. The next bar is given to it only when the last one is known to its end. Otherwise something was missed that could
//    not be recovered: the library is told to forget what it has, and the chart to ask anew.
// 4. Days, weeks and months begin at 00:00 UTC, as the library wants them: of a daemon without --day-offset.
//
// The API is that of https://www.tradingview.com/charting-library-docs/latest/connecting_data/datafeed-api/

/** The library's names of resolutions, and ours. */
const INTERVALS = new Map(Object.entries({
  '1S': '1s', 1: '1m', 3: '3m', 5: '5m', 15: '15m', 30: '30m', 60: '1h', 120: '2h', 240: '4h', 360: '6h', 480: '8h',
  720: '12h', '1D': '1d', '1W': '1w', '1M': '1M',
}));
const PAGE = 1000; // candles, the most that the daemon answers at a time

export class Datafeed {
  #feed;
  #rest;
  #reset;
  #last = new Map(); // of a stream, the last candle of its history, with the names that it has there; it is open
  #stops = new Map(); // of who listens, how to end it

  /**
   * @param {import('marketfeed').MarketFeed} feed
   * @param {import('marketfeed/rest').MarketRest} rest
   * @param {() => void} reset Make the chart ask for its bars anew: `() => widget.activeChart().resetData()`.
   */
  constructor(feed, rest, reset) {
    this.#feed = feed;
    this.#rest = rest;
    this.#reset = reset;
  }

  onReady(callback) {
    later(callback, { supported_resolutions: [...INTERVALS.keys()], supports_time: true });
  }

  getServerTime(callback) {
    this.#rest.time().then((time) => callback(Math.floor(time / 1000)), () => {}); // else it goes by its own clock
  }

  async searchSymbols(input, exchange, type, onResult) {
    const wanted = input.trim().toUpperCase();
    const markets = await this.#rest.markets().catch(() => []);
    const found = markets.filter(({ name, base, quote }) => `${name} ${base}/${quote}`.toUpperCase().includes(wanted));
    onResult(found.map((market) => ({ symbol: market.name, ticker: market.name, ...described(market) })));
  }

  async resolveSymbol(name, onResolve, onError) {
    try {
      const market = (await this.#rest.markets()).find((each) => each.name === name);
      if (market) onResolve({ name, ticker: name, ...described(market), ...SESSION, ...scaled(market) });
      else onError('unknown_symbol');
    } catch (error) {
      onError(error.message);
    }
  }

  async getBars({ ticker }, resolution, { to, countBack, firstDataRequest }, onResult, onError) {
    const interval = intervalOf(resolution);
    try {
      const candles = [];
      for (let end = to * 1000 - 1; candles.length < countBack;) {
        const limit = Math.min(PAGE, countBack - candles.length);
        const page = await this.#rest.klines(ticker, interval, { endTime: end, limit });
        candles.unshift(...page);
        if (page.length < limit) break; // the market is not older than that
        end = page[0].openTime - 1;
      }
      if (firstDataRequest && candles.length) {
        const { openTime: t, closeTime: T } = candles.at(-1);
        this.#last.set(streamOf(ticker, interval), { t, T, x: false });
      }
      onResult(candles.map(barOf), { noData: candles.length === 0 });
    } catch (error) {
      onError(error.message);
    }
  }

  subscribeBars({ ticker }, resolution, onTick, listener, onResetCacheNeeded) {
    const stream = streamOf(ticker, intervalOf(resolution));
    let last = this.#last.get(stream);
    this.#stops.set(listener, this.#feed.on(stream, ({ k }) => {
      if (last && (k.t < last.t || (k.t === last.t && last.x))) return;
      const isNext = !last || k.t === last.t || (last.x && k.t === last.T + 1);
      last = k;
      onTick({ time: k.t, ...numbers(k.o, k.h, k.l, k.c, k.v) });
      if (isNext) return;
      onResetCacheNeeded();
      this.#reset();
    }));
  }

  unsubscribeBars(listener) {
    this.#stops.get(listener)?.();
    this.#stops.delete(listener);
  }
}

/** A market that never closes, and has bars of every resolution. */
const SESSION = {
  session: '24x7',
  timezone: 'Etc/UTC',
  has_seconds: true,
  seconds_multipliers: ['1'],
  has_intraday: true,
  intraday_multipliers: [...INTERVALS.keys()].filter((each) => /^\d+$/.test(each)),
  has_daily: true,
  daily_multipliers: ['1'],
  has_weekly_and_monthly: true,
  weekly_multipliers: ['1'],
  monthly_multipliers: ['1'],
  supported_resolutions: [...INTERVALS.keys()],
  data_status: 'streaming',
  format: 'price',
};

const described = ({ base, quote }) => ({ description: `${base}/${quote}`, exchange: '', listed_exchange: '', type: 'spot' });
const streamOf = (market, interval) => `kline_${interval}@${market}`;
const later = (callback, ...words) => setTimeout(() => callback(...words)); // never within the library's own call
const intervalOf = (resolution) => INTERVALS.get(resolution) ?? INTERVALS.get(`1${resolution}`); // D is 1D

/** The library counts in steps of a power of ten: 0.05 are 5 of a hundredth. */
function scaled({ priceStep = '0.01', quantityStep = '1' }) {
  const pricescale = 10 ** places(priceStep);
  return { pricescale, minmov: Math.round(priceStep * pricescale), volume_precision: places(quantityStep) };
}

const places = (decimal) => (decimal.split('.')[1] ?? '').replace(/0+$/, '').length;
const numbers = (open, high, low, close, volume) => ({ open: +open, high: +high, low: +low, close: +close, volume: +volume });
const barOf = ({ openTime, open, high, low, close, volume }) => ({ time: openTime, ...numbers(open, high, low, close, volume) });
