// An order book's levels, from depth messages. Pure.
//
// 1. A message with `snapshot` replaces all levels; any other changes those that it names, and a quantity of 0 removes one.
// 2. Prices are compared as decimals, and spelled as the engine spelled them last.
// 3. Both sides are sorted at any time, best first.

import { compare, isDecimal } from './decimals.js';

/** @typedef {import('./types.js').Depth} Depth */
/** @typedef {import('./types.js').Level} Level */

/** One side of a book. */
class Side {
  #sign;
  /** @type {Level[]} Worst first: what changes most is at the end, where the least has to move. */
  #levels = [];

  /** @param {1 | -1} sign 1 where the highest price is the best. */
  constructor(sign) {
    this.#sign = sign;
  }

  get size() {
    return this.#levels.length;
  }

  /** @param {Level} change */
  put([price, quantity]) {
    const levels = this.#levels;
    let low = 0;
    let high = levels.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const order = this.#sign * compare(levels[middle][0], price);
      if (order === 0) {
        if (Number(quantity)) levels[middle] = [price, quantity];
        else levels.splice(middle, 1);
        return;
      }
      if (order < 0) low = middle + 1;
      else high = middle;
    }
    if (Number(quantity)) levels.splice(low, 0, [price, quantity]);
  }

  clear() {
    this.#levels = [];
  }

  /** @param {number} count */
  best(count) {
    return count > 0 ? this.#levels.slice(-count).reverse() : [];
  }
}

/** Bids and asks. */
export class Ladder {
  #bids = new Side(1);
  #asks = new Side(-1);

  /** How many levels there are on both sides. */
  get size() {
    return this.#bids.size + this.#asks.size;
  }

  /** @param {Depth} message @throws {TypeError} One that is no depth message; the levels are good for nothing then. */
  apply({ a, b, snapshot }) {
    if (snapshot) this.clear();
    for (const level of a) this.#asks.put(spelled(level));
    for (const level of b) this.#bids.put(spelled(level));
  }

  clear() {
    this.#asks.clear();
    this.#bids.clear();
  }

  /** @param {number} count @returns {Level[]} At most so many, the highest price first. */
  bids(count) {
    return this.#bids.best(count);
  }

  /** @param {number} count @returns {Level[]} At most so many, the lowest price first. */
  asks(count) {
    return this.#asks.best(count);
  }
}

/** @param {Level} level Of numbers, where the engine writes numbers. @returns {Level} @throws {TypeError} One that is none. */
function spelled([price, quantity]) {
  /** @type {Level} */
  const level = [String(price), String(quantity)];
  if (!level.every(isDecimal)) throw new TypeError(`no level: ${level}`);
  return level;
}
