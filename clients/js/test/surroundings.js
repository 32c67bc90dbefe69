// What is around a feed in a test, but for its sockets: a clock that is moved by hand, chance that is said, and pictures
// that are drawn when they are asked for. The scenarios of all clients run on it too, in tests/conformance/.

export class Surroundings {
  frames = new Set();
  watchers = new Set();
  #timers = new Map();
  #last = 0;

  /** `chances`: what `random` says next; `usual`: what it says when nothing of that is left. */
  constructor({ time, chances = [], usual }) {
    this.time = time;
    this.chances = chances;
    this.environment = {
      now: () => this.time,
      random: () => this.chances.shift() ?? usual,
      setTimeout: (callback, delay) => {
        this.#last += 1;
        this.#timers.set(this.#last, { at: this.time + delay, callback });
        return this.#last;
      },
      clearTimeout: (timer) => this.#timers.delete(timer),
      frame: (callback) => {
        this.frames.add(callback);
        return () => this.frames.delete(callback);
      },
      watch: (callback) => {
        this.watchers.add(callback);
        return () => this.watchers.delete(callback);
      },
    };
  }

  get timers() {
    return this.#timers.size;
  }

  /** In how many ms the next timer is due. */
  get next() {
    return Math.min(...[...this.#timers.values()].map(({ at }) => at)) - this.time;
  }

  /** Let time pass, timer by timer, with all that follows at once. */
  async pass(delay) {
    const end = this.time + delay;
    await settled();
    for (;;) {
      const due = [...this.#timers].filter(([, { at }]) => at <= end).sort(([, one], [, other]) => one.at - other.at)[0];
      if (!due) break;
      const [timer, { at, callback }] = due;
      this.#timers.delete(timer);
      this.time = Math.max(this.time, at);
      callback();
      await settled();
    }
    this.time = end;
  }

  draw() {
    const frames = [...this.frames];
    this.frames.clear();
    for (const frame of frames) frame();
  }

  wake() {
    for (const watcher of [...this.watchers]) watcher();
  }
}

/** All that was waiting for a promise has run. */
export function settled() {
  return new Promise((resolve) => setImmediate(resolve));
}
