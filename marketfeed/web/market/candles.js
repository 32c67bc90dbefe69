// The candles of one market and interval: what was, from REST, and what becomes of the last one, from the stream. What
// the stream says while a question is under way is newer than its answer.

import { feed, past, rest } from './data.js';

const FIRST = 500;
const FURTHER = 1000;
const MOST = 20_000; // kept; who wants to look back further takes a longer interval

/** How long a period is, in ms. */
export const INTERVALS = { '1s': 1e3, '1m': 6e4, '5m': 3e5, '15m': 9e5, '1h': 36e5, '4h': 144e5, '1d': 864e5 };

/** `changed` is called after each change, with whether candles were put before the others, and how many. */
export class Candles {
  /** Oldest first, one behind the other: `{t, o, h, l, c, v}`, all numbers. */
  all = [];
  isLoaded = false;
  #changed;
  #market;
  #interval;
  #stop;
  #isOpen = true;
  #isAsking = false;
  #isWhole = false;
  #asking = 0; // how many questions for all that was are under way
  #since = new Map(); // what the stream has said meanwhile, by time

  constructor(market, interval, changed) {
    [this.#market, this.#interval, this.#changed] = [market, interval, changed];
    this.load();
    this.#stop = feed.batch(`kline_${interval}@${market}`, (batch) => {
      for (const { k } of batch) this.#take({ t: k.t, o: +k.o, h: +k.h, l: +k.l, c: +k.c, v: +k.v });
      this.#changed(0);
    });
  }

  /** Ask for all that was, also anew: what was missed while there was no connection is in the answer. */
  async load() {
    this.#asking += 1;
    await past(this.#market, this.#interval, FIRST, (found) => this.#fill(found.map(numbered)), () => this.#isOpen);
    this.#asking -= 1;
    if (!this.#asking) this.#since.clear();
  }

  /** Ask for what was before the first one. */
  async back() {
    if (this.#isAsking || this.#isWhole || !this.all.length || this.all.length > MOST) return;
    this.#isAsking = true;
    const endTime = this.all[0].t - 1;
    const found = await rest.klines(this.#market, this.#interval, { limit: FURTHER, endTime }).catch(() => null);
    this.#isAsking = false;
    if (!this.#isOpen || !found) return;
    this.#isWhole = !found.length;
    this.all = [...found.map(numbered), ...this.all];
    this.#changed(found.length);
  }

  /** A trade changes the open candle before the stream says so. */
  trade(price, at) {
    const last = this.all.at(-1);
    if (!last || at < last.t || at >= last.t + INTERVALS[this.#interval]) return;
    const c = Number(price);
    [last.c, last.h, last.l] = [c, Math.max(last.h, c), Math.min(last.l, c)];
    this.#changed(0);
  }

  close() {
    this.#isOpen = false;
    this.#stop();
  }

  #fill(fresh) {
    const [first, last] = [fresh[0]?.t ?? Infinity, fresh.at(-1)?.t ?? -Infinity];
    this.all = [...this.all.filter(({ t }) => t < first), ...fresh, ...this.all.filter(({ t }) => t > last)];
    this.isLoaded = true;
    for (const candle of this.#since.values()) this.#put(candle);
    this.#changed(0);
  }

  #take(candle) {
    if (this.#asking) this.#since.set(candle.t, candle);
    this.#put(candle);
  }

  #put(candle) {
    let at = this.all.length - 1;
    while (at >= 0 && this.all[at].t > candle.t) at -= 1;
    if (this.all[at]?.t === candle.t) this.all[at] = candle;
    else if (this.isLoaded) this.all.splice(at + 1, 0, candle);
    if (this.all.length > MOST + FURTHER) this.all = this.all.slice(-MOST);
  }
}

function numbered({ openTime, open, high, low, close, volume }) {
  return { t: openTime, o: +open, h: +high, l: +low, c: +close, v: +volume };
}
