// A bounded queue between a stream and a `for await` loop.

/**
 * What waits for a loop; more than `limit` is not kept, and the oldest goes first.
 *
 * @template T
 * @implements {AsyncIterableIterator<T>}
 */
export class Queue {
  #limit;
  #hooks;
  /** @type {T[]} */
  #items = [];
  /** @type {{resolve: (result: IteratorResult<T>) => void, reject: (error: unknown) => void}[]} */
  #waiting = [];
  #isBegun = false;
  #isOver = false;
  #isOverflowing = false;
  /** @type {unknown} */
  #error;

  /** How many were dropped so far. */
  dropped = 0;

  /**
   * @param {number} limit
   * @param {{begin: () => void, end: () => void, overflow: () => void}} hooks Called when the loop begins, when it ends,
   *   and when the first one is dropped since the loop last took one.
   */
  constructor(limit, hooks) {
    this.#limit = limit;
    this.#hooks = hooks;
  }

  /** @param {T} item */
  push(item) {
    if (this.#isOver) return;
    const waiting = this.#waiting.shift();
    if (waiting) return waiting.resolve({ value: item, done: false });
    if (this.#items.push(item) <= this.#limit) return;
    this.#items.shift();
    this.dropped += 1;
    if (this.#isOverflowing) return;
    this.#isOverflowing = true;
    this.#hooks.overflow();
  }

  /**
   * Nothing more comes. What waits is still there for the loop, and behind it the error, if there is one.
   *
   * @param {unknown} [error]
   */
  finish(error) {
    this.#isOver = true;
    this.#error = error;
    for (const { resolve, reject } of this.#waiting.splice(0)) this.next().then(resolve, reject);
  }

  /** @returns {Promise<IteratorResult<T>>} */
  async next() {
    if (!this.#isBegun) {
      this.#isBegun = true;
      this.#hooks.begin();
    }
    this.#isOverflowing = false;
    if (this.#items.length) return { value: /** @type {T} */ (this.#items.shift()), done: false };
    if (!this.#isOver) return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
    const error = this.#error;
    this.#error = undefined; // thrown once
    if (error) throw error;
    return { value: undefined, done: true };
  }

  /** @returns {Promise<IteratorResult<T>>} */
  async return() {
    this.#isBegun = true;
    this.#items = [];
    this.finish();
    this.#hooks.end();
    return { value: undefined, done: true };
  }

  [Symbol.asyncIterator]() {
    return this;
  }
}
