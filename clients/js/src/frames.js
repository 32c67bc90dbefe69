// Jobs that are done once when the next picture is drawn, however often they are asked for.

/** Jobs for the next picture. */
export class Frames {
  #request;
  /** @type {Set<() => void>} */
  #jobs = new Set();
  /** @type {(() => void) | null} */
  #cancel = null;

  /** @param {(callback: () => void) => () => void} request Call back at the next picture; returns how to cancel it. */
  constructor(request) {
    this.#request = request;
  }

  /** Do a job, which does not throw, at the next picture. @param {() => void} job */
  add(job) {
    this.#jobs.add(job);
    this.#cancel ??= this.#request(() => {
      const jobs = this.#jobs;
      this.#jobs = new Set();
      this.#cancel = null;
      for (const each of jobs) each();
    });
  }

  /** Do it no more. @param {() => void} job */
  drop(job) {
    this.#jobs.delete(job);
    if (!this.#jobs.size) this.clear();
  }

  clear() {
    this.#jobs.clear();
    this.#cancel?.();
    this.#cancel = null;
  }
}
