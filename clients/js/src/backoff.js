// How long to wait before the next attempt. Pure.
//
// 1. Full jitter: anything from 0 to a bound that doubles with each failure, so that clients which lost the server
//    together do not come back together.
// 2. A hint of the server is taken as it is, once: it differs from client to client already.
// 3. A connection counts as good, and what failed before it as over, only if it lasted.

/** The pauses between attempts. Times are in ms. */
export class Backoff {
  #base;
  #most;
  #stable;
  #random;
  #failures = 0;

  /** @param {{base: number, most: number, stable: number, random: () => number}} settings */
  constructor({ base, most, stable, random }) {
    this.#base = base;
    this.#most = most;
    this.#stable = stable;
    this.#random = random;
  }

  /** How many attempts have failed since a connection was good. */
  get failures() {
    return this.#failures;
  }

  /**
   * A connection, or an attempt at one, has ended.
   *
   * @param {number} lasted For how long it was open; 0 if it never was.
   * @param {number} [weight] How many failures it counts for, at least.
   */
  failed(lasted, weight = 1) {
    if (lasted >= this.#stable) this.#failures = 0;
    this.#failures = Math.max(this.#failures + 1, weight);
  }

  /**
   * The pause before the next attempt.
   *
   * @param {number} [hint] What the server asked for.
   */
  pause(hint) {
    return hint ?? Math.round(this.#random() * Math.min(this.#most, this.#base * 2 ** (Math.max(this.#failures, 1) - 1)));
  }
}
