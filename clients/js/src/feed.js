// The feed: a connection that is there whenever it can be, and what is wanted of it.
//
// 1. One attempt or connection at a time; whatever an earlier one has yet to say is not listened to.
// 2. One timer: while connecting the time-out, while open the next look for signs of life, while waiting the next attempt.
// 3. A function of the application that throws is told as an error, and is in nobody's way. Such an error and a final
//    one are said on the console if nobody listens to errors.
// 4. `closed` is final: no timer, no listener and no socket is left, and nobody is called any more.

import { Backoff } from './backoff.js';
import { surroundings } from './environment.js';
import { FeedError, closedWith, weightOf } from './errors.js';
import { Frames } from './frames.js';
import { Queue } from './queue.js';
import { Session } from './session.js';
import { address, entryOf, timesOf, whole } from './settings.js';

/** @typedef {import('./types.js').FeedEvents} FeedEvents */
/** @typedef {import('./types.js').Message} Message */
/** @typedef {import('./types.js').Options} Options */
/** @typedef {import('./types.js').Socket} Socket */
/** @typedef {import('./types.js').State} State */
/** @typedef {import('./session.js').Subscription} Subscription */
/**
 * @template {string} S
 * @typedef {import('./types.js').DataOf<S>} DataOf
 */
/**
 * @template {string} N
 * @typedef {import('./types.js').Handler<N>} Handler
 */
/**
 * @template T
 * @typedef {import('./types.js').Askable<T>} Askable
 */

/** @typedef {ReturnType<typeof entryOf>} Entry */

/** The events that can be listened to. */
export const EVENTS = /** @type {const} */ ([
  'state', 'reconnecting', 'message', 'recovered', 'rewound', 'gap', 'quality', 'expiring', 'overflow', 'error',
]);

const MOST_REWOUND = 1000;
const MOST_WAITING = 10_000; // publications, for a batch or a loop
const LARGEST_QUEUE = 2 ** 24;
const GRACE = 100; // for what has come already and waits behind a timer that was late
const UNREAD = 1000;
const NORMAL = 1000;

/**
 * A live connection to marketfeed.
 *
 * It connects by itself, and again whenever the connection is lost, until `close` is called or an error is final. What
 * is wanted is asked for on each connection, from where the last one ended.
 */
export class MarketFeed {
  #url;
  #token;
  #times;
  #environment;
  #affinity;
  #backoff;
  #session;
  #unwatch;
  /** @type {State} */
  #state = 'connecting';
  /** @type {FeedError | undefined} */
  #error;
  /** @type {Map<string, readonly Entry[]>} */
  #listeners = new Map();
  /** @type {Set<Queue<any>>} */
  #queues = new Set();
  /** @type {Socket | null} */
  #socket = null;
  #attempts = 0; // tells an attempt from those before it
  /** @type {unknown} */
  #timer;
  /** @type {unknown} */
  #pause;
  #isFlushing = false;
  #isReporting = false;
  /** @type {number | undefined} */
  #hint;
  #isHinted = false;
  #openedAt = 0;
  #heardAt = 0;
  #isHeard = false;
  #signs = 0; // 0: nothing is asked for; 1: a sign of life is; 2: its time is over

  /**
   * @param {Askable<string | URL>} url Where the daemon is, as `wss://feed.example.com/`.
   * @param {Options} [options]
   */
  constructor(url, options = {}) {
    this.#times = timesOf(options);
    const environment = { ...surroundings(), ...options.environment };
    environment.WebSocket = options.WebSocket ?? environment.WebSocket;
    if (typeof environment.WebSocket !== 'function') {
      throw new TypeError('WebSocket: none here; expected one as an option');
    }
    this.#environment = environment;
    this.#affinity = options.affinity ?? environment.random().toString(36).slice(2);
    this.#url = url;
    this.#token = options.token;
    if (typeof url !== 'function') address(url, this.#affinity);
    const { backoffBase: base, backoffMost: most, stableAfter: stable } = this.#times;
    this.#backoff = new Backoff({ base, most, stable, random: environment.random });
    /** @protected What is done once for each picture. */
    this.frames = new Frames(environment.frame);
    this.#session = new Session({
      send: (text) => this.#socket?.send(text),
      deliver: (subscription, message) => this.#deliver(subscription, message),
      emit: (name, event) => this.#emit(name, event),
      now: environment.now,
      ready: () => this.#ready(),
      later: (refusals) => {
        const pause = Math.min(this.#times.backoffMost, UNREAD * 2 ** refusals) * (0.5 + environment.random() / 2);
        this.#pause = environment.setTimeout(() => this.#session.resume(), pause);
      },
      fail: (error) => this.#ended(error),
      shutdown: (hint) => (this.#hint = hint),
      expiring: () => this.#renewToken(),
    });
    this.#unwatch = environment.watch(() => this.#wake());
    this.#connect();
  }

  /** What it is doing. */
  get state() {
    return this.#state;
  }

  /** The final error that closed it. */
  get error() {
    return this.#error;
  }

  /**
   * Listen to a stream, as `trade@TATA_INR`, or to an event.
   *
   * @template {string} N
   * @param {N} name
   * @param {Handler<N>} handler Called with the data of each publication, and the message that it came in.
   * @param {{rewind?: number}} [options] `rewind`: with how many of its last publications the stream begins, 1,000 at
   *   most; what the first handler says counts.
   * @returns {() => void} Ends it. Of a stream that nobody listens to any more, nothing comes.
   */
  on(name, handler, { rewind = 0 } = {}) {
    const isStream = /.@./.test(name);
    if (!isStream && !EVENTS.includes(/** @type {any} */ (name))) {
      throw new TypeError(`expected a stream, as trade@TATA_INR, or one of ${EVENTS.join(', ')}; not ${name}`);
    }
    const entry = entryOf(name, handler);
    if (rewind) whole('rewind', rewind, MOST_REWOUND);
    if (this.#state === 'closed') return () => {};
    if (!isStream) {
      this.#listeners.set(name, [...(this.#listeners.get(name) ?? []), entry]);
      return () => {
        entry.isActive = false;
        this.#listeners.set(name, without(this.#listeners.get(name), entry));
      };
    }
    const subscription = this.#session.want(name, rewind);
    subscription.entries = [...subscription.entries, entry];
    this.#flushSoon();
    return () => {
      if (!entry.isActive) return;
      entry.isActive = false;
      subscription.entries = without(subscription.entries, entry);
      if (subscription.entries.length || this.#state === 'closed') return;
      this.#session.drop(subscription);
      this.#flushSoon();
    };
  }

  /**
   * Listen to a stream by batches: all that has come since the last picture was drawn, once for each picture.
   *
   * @template {string} S
   * @param {S} stream
   * @param {(batch: DataOf<S>[]) => unknown} handler
   * @param {{rewind?: number}} [options] As for `on`.
   * @returns {() => void} Ends it.
   */
  batch(stream, handler, options) {
    /** @type {DataOf<S>[]} */
    let batch = [];
    const entry = entryOf(stream, handler);
    const flush = () => {
      const all = batch;
      batch = [];
      this.call(entry, all);
    };
    /** @param {DataOf<S>} data */
    const take = (data) => {
      if (batch.push(data) === 1) this.frames.add(flush);
      else if (batch.length === MOST_WAITING) {
        this.frames.drop(flush);
        flush();
      }
    };
    const stop = this.on(stream, /** @type {any} */ (take), options);
    return () => {
      entry.isActive = false;
      this.frames.drop(flush);
      stop();
    };
  }

  /**
   * A stream for a `for await` loop. It begins with the loop, and ends when the loop is left or the feed is closed; a
   * final error is thrown there.
   *
   * @template {string} S
   * @param {S} stream
   * @param {{rewind?: number, limit?: number}} [options] `limit`: how many publications may wait for the loop, 10,000.
   *   The oldest are dropped first, which is the event `overflow`; `dropped` says how many were.
   * @returns {Queue<DataOf<S>>}
   */
  stream(stream, { rewind, limit = MOST_WAITING } = {}) {
    let stop = () => {};
    /** @type {Queue<DataOf<S>>} */
    const queue = new Queue(whole('limit', limit, LARGEST_QUEUE), {
      begin: () => {
        if (this.#state === 'closed') {
          queue.finish(this.#error);
          return;
        }
        this.#queues.add(queue);
        stop = this.on(stream, /** @type {any} */ ((/** @type {DataOf<S>} */ data) => queue.push(data)), { rewind });
      },
      end: () => {
        this.#queues.delete(queue);
        stop();
      },
      overflow: () => this.#emit('overflow', { stream, limit }),
    });
    return queue;
  }

  /**
   * The last publications of a stream, oldest first. It needs an open connection: nothing is queued.
   *
   * @template {string} S
   * @param {S} stream
   * @param {{limit?: number}} [options] How many at most, 1 to 1,000; 100 if not given.
   * @returns {Promise<{offset: string, data: DataOf<S>}[]>}
   */
  async history(stream, { limit = 100 } = {}) {
    return this.#session.history(stream, whole('limit', limit, MOST_REWOUND));
  }

  /**
   * Ask for a stream anew, from its state: its book or its last ticker comes again. Whoever listens to it misses
   * nothing of a state, but may miss publications.
   *
   * @param {string} stream
   */
  refresh(stream) {
    this.#session.refresh(stream);
    this.#flushSoon();
  }

  /** Resolves once a connection is open; rejects when the feed is closed. @returns {Promise<void>} */
  ready() {
    return new Promise((resolve, reject) => {
      const settle = () => {
        if (this.#state === 'open') resolve();
        else if (this.#state === 'closed') reject(this.#error ?? new FeedError('not-open', 'the feed is closed'));
        else return false;
        return true;
      };
      if (settle()) return;
      const stop = this.on('state', () => {
        if (settle()) stop();
      });
    });
  }

  /** End it for good. */
  close() {
    if (this.#state !== 'closed') this.#finish();
  }

  // Attempts and connections.

  async #connect() {
    const attempt = (this.#attempts += 1);
    const { connectTimeout } = this.#times;
    this.#after(connectTimeout, () => this.#ended(new FeedError('timeout', `no connection within ${connectTimeout} ms`)));
    /** @type {'url' | 'token'} */
    let asked = 'url';
    let given = this.#url;
    /** @type {Socket} */
    let socket;
    let unreached = '';
    try {
      const url = address(typeof given === 'function' ? await given() : given, this.#affinity);
      if (attempt !== this.#attempts) return;
      [unreached] = url.split('?'); // what is behind it may be a secret
      asked = 'token';
      given = /** @type {any} */ (this.#token);
      const token = typeof this.#token === 'function' ? await this.#token() : this.#token;
      if (attempt !== this.#attempts) return;
      if (!token) asked = 'url';
      const Constructor = /** @type {import('./types.js').SocketConstructor} */ (this.#environment.WebSocket);
      socket = token ? new Constructor(url, ['marketfeed', `bearer.${token}`]) : new Constructor(url);
    } catch (cause) {
      if (attempt !== this.#attempts) return;
      const final = typeof given !== 'function' || Boolean(/** @type {any} */ (cause)?.final);
      this.#ended(new FeedError(asked, `${asked}: ${/** @type {any} */ (cause)?.message ?? cause}`, { final, cause }));
      return;
    }
    this.#socket = socket;
    socket.binaryType = 'arraybuffer'; // which is no message, wherever it comes; Node would have read it as text
    /** @type {unknown} */
    let cause;
    socket.onopen = () => {
      unreached = '';
      this.#heard();
      this.#session.opened();
    };
    socket.onmessage = ({ data }) => {
      this.#heard();
      this.#session.message(data);
    };
    socket.onerror = ({ error }) => {
      cause = error;
    };
    socket.onclose = ({ code, reason }) => {
      this.#ended(closedWith(code, reason, typeof this.#token === 'function', cause, unreached));
    };
  }

  #heard() {
    this.#heardAt = this.#environment.now();
    this.#isHeard = true;
  }

  /** The server has answered. */
  #ready() {
    this.#openedAt = this.#environment.now();
    this.#signs = 0;
    this.#after(this.#times.pingInterval, () => this.#look());
    this.#become('open');
  }

  /** Look for signs of life, and ask for one when there was none. */
  #look() {
    const { pingInterval, pingTimeout } = this.#times;
    const now = this.#environment.now();
    const quiet = now - this.#heardAt;
    const unanswered = now - (this.#session.waitingSince ?? now);
    let pause = GRACE;
    if (unanswered > 2 * (pingInterval + pingTimeout)) {
      return this.#ended(new FeedError('dead', `no answer within ${unanswered} ms`));
    }
    const isHeard = this.#isHeard;
    this.#isHeard = false;
    if (isHeard && (this.#signs || quiet < pingInterval)) {
      this.#signs = 0;
      pause = Math.min(pingInterval, Math.max(GRACE, pingInterval - quiet));
    } else if (this.#signs === 0) {
      this.#signs = 1;
      this.#session.ping();
      pause = pingTimeout;
    } else if (this.#signs === 1) this.#signs = 2;
    else return this.#ended(new FeedError('dead', `no sign of life within ${pingTimeout} ms`));
    this.#after(pause, () => this.#look());
  }

  /** The network is there again, or somebody looks: do at once what would be done later. */
  #wake() {
    if (this.#state === 'waiting' && !this.#isHinted) this.#retry();
    else if (this.#state === 'open' && this.#signs === 0) {
      this.#isHeard = false;
      this.#look();
    }
  }

  #retry() {
    this.#become('connecting');
    if (this.#state === 'connecting') this.#connect();
  }

  /** The attempt or the connection is over. @param {FeedError} error */
  #ended(error) {
    if (this.#state === 'closed') return;
    const lasted = this.#state === 'open' ? this.#environment.now() - this.#openedAt : 0;
    this.#let();
    if (error.final) return this.#finish(error);
    this.#backoff.failed(lasted, weightOf(error));
    const delay = this.#backoff.pause(this.#hint);
    const hinted = (this.#isHinted = this.#hint !== undefined);
    this.#hint = undefined;
    this.#after(delay, () => this.#retry());
    this.#become('waiting');
    this.#emit('error', error);
    this.#emit('reconnecting', { delay, attempt: this.#backoff.failures, hinted });
  }

  /** Let go of the socket, and of what belongs to it. */
  #let() {
    const socket = this.#socket;
    this.#socket = null;
    this.#attempts += 1;
    this.#environment.clearTimeout(this.#timer);
    this.#environment.clearTimeout(this.#pause);
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.onerror = () => {}; // what nobody listens to would end a program in Node
      socket.close(NORMAL);
    }
    this.#session.lost(this.#heardAt);
  }

  /** @param {FeedError} [error] */
  #finish(error) {
    this.#let();
    this.#unwatch();
    this.frames.clear();
    this.#error = error;
    for (const { entries } of this.#session.subscriptions) for (const entry of entries) entry.isActive = false;
    this.#become('closed');
    if (error) this.#emit('error', error);
    for (const queue of this.#queues) queue.finish(error);
    this.#queues.clear();
    for (const entries of this.#listeners.values()) for (const entry of entries) entry.isActive = false;
    this.#listeners.clear();
  }

  async #renewToken() {
    const attempt = this.#attempts;
    if (typeof this.#token !== 'function') return;
    try {
      const token = await this.#token();
      if (attempt === this.#attempts && token) await this.#session.auth(token);
    } catch (cause) {
      if (attempt !== this.#attempts) return;
      const { message = cause, final = false, code } = /** @type {any} */ (cause) ?? {};
      const error = new FeedError('token', `token: ${message}`, { final: final && code === undefined, code, cause });
      if (error.final) this.#ended(error);
      else this.#emit('error', error);
    }
  }

  /**
   * @param {number} delay
   * @param {() => void} callback
   */
  #after(delay, callback) {
    this.#environment.clearTimeout(this.#timer);
    this.#timer = this.#environment.setTimeout(callback, delay);
  }

  /** What is asked for in one go is one request. */
  #flushSoon() {
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    queueMicrotask(() => {
      this.#isFlushing = false;
      this.#session.flush();
    });
  }

  // Who is called.

  /** @param {State} state */
  #become(state) {
    const previous = this.#state;
    if (previous === state || previous === 'closed') return;
    this.#state = state;
    this.#emit('state', { state, previous });
  }

  /**
   * @param {Subscription} subscription
   * @param {Message} message
   */
  #deliver(subscription, message) {
    const { data } = message;
    for (const entry of subscription.entries) this.call(entry, data, message);
    if (this.#listeners.size) this.#emit('message', message);
  }

  /**
   * @template {keyof FeedEvents} N
   * @param {N} name
   * @param {FeedEvents[N]} event
   */
  #emit(name, event) {
    const entries = this.#listeners.get(name);
    if (entries?.length) for (const entry of entries) this.call(entry, event);
    else if (/** @type {any} */ (event).final) console.error(event);
  }

  /**
   * Call a function of the application; nothing that it does is in anybody's way.
   *
   * @protected
   * @param {Entry} entry
   * @param {unknown} first
   * @param {unknown} [second]
   */
  call(entry, first, second) {
    if (!entry.isActive) return;
    try {
      const result = /** @type {any} */ (entry.handler(first, second));
      if (result !== undefined && typeof result?.then === 'function') {
        result.then(undefined, (/** @type {unknown} */ cause) => this.#report(cause));
      }
    } catch (cause) {
      this.#report(cause);
    }
  }

  /** A function of the application has failed. @param {unknown} cause */
  #report(cause) {
    if (this.#isReporting || !this.#listeners.get('error')?.length) {
      console.error(cause);
      return;
    }
    this.#isReporting = true;
    this.#emit('error', new FeedError('handler', `a handler failed: ${cause}`, { cause }));
    this.#isReporting = false;
  }
}

/**
 * @param {readonly Entry[] | undefined} entries
 * @param {Entry} entry
 */
function without(entries = [], entry) {
  return entries.filter((each) => each !== entry);
}
