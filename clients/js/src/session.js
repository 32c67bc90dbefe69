// The conversation with the daemon, without a socket, a clock or a timer: what is wanted and what comes in → what is
// sent and what is told. docs/protocol.md is the contract.
//
// 1. What is wanted is kept, requests are not: each connection begins by asking for all that is wanted then.
// 2. The offset of a stream moves on before its handlers are called, so that nothing comes twice, whatever they do.
// 3. What comes of a stream before its SUBSCRIBE is answered belongs to an earlier question, and is left aside.
// 4. A stream is subscribed anew only when its UNSUBSCRIBE has been answered.
// 5. A stream that was not recovered is lost with the next message that comes of it, and not before: while a gap is open
//    its source may be able to say more later.
// 6. A SUBSCRIBE takes effect whole or not at all: one that is refused is halved until it is known which stream it was.

import { FeedError } from './errors.js';

/** @typedef {import('./types.js').FeedEvents} FeedEvents */
/** @typedef {import('./types.js').Message} Message */

/**
 * What the session asks of whoever has the connection.
 *
 * @typedef {object} Port
 * @property {(text: string) => void} send
 * @property {(subscription: Subscription, message: Message) => void} deliver
 * @property {<N extends keyof FeedEvents>(name: N, event: FeedEvents[N]) => void} emit
 * @property {() => number} now In ms since 1970.
 * @property {() => void} ready The server has answered for the first time.
 * @property {(failures: number) => void} later Call `flush` after a pause: the server has been asked too much.
 * @property {(error: FeedError) => void} fail End this connection.
 * @property {(hint: number) => void} shutdown The server goes, and asks to come back after so many ms.
 * @property {() => void} expiring The token will not be good for long.
 */

/** @typedef {{at: number, done: (data: any) => void}} Pending */

const NEW = 0;
const ASKED = 1;
const LIVE = 2;
const REFUSED = 3;

const MOST_STREAMS = 200;
const MOST_CHARACTERS = 15_000; // of a daemon's 65,536 bytes for a message, whatever the characters are
const INVALID = 2;
const TOO_MANY_SUBSCRIPTIONS = 4;
const NOT_PERMITTED = 5;
const TOO_MANY_REQUESTS = 7;

/** What is wanted of one stream, and where it stands. */
export class Subscription {
  /**
   * @param {string} stream
   * @param {number} rewind
   */
  constructor(stream, rewind) {
    this.stream = stream;
    this.rewind = rewind;
    /** @type {readonly any[]} Whoever listens, for whoever delivers. */
    this.entries = [];
    /** @type {string | undefined} Of the last message that was delivered. */
    this.offset = undefined;
    this.status = NEW;
    this.asked = 0; // the id of its SUBSCRIBE
    this.refusal = 0; // the code of the last refusal
    this.isLost = false;
    this.isReplaying = false;
    this.count = 0; // recovered so far
    this.past = 0; // rewound ones still to come
    /** @type {number | null} Since when something may be missing. */
    this.from = null;
    /** @type {number | null} */
    this.to = null;
  }
}

/** One client's conversation, over any number of connections. */
export class Session {
  #port;
  /** @type {Map<string, Subscription>} */
  #wanted = new Map();
  /** @type {Set<Subscription>} To be asked for. */
  #fresh = new Set();
  /** @type {Set<string>} To be unsubscribed. */
  #leave = new Set();
  /** @type {Set<string>} Their UNSUBSCRIBE has not been answered yet. */
  #leaving = new Set();
  /** @type {Map<number, Pending>} */
  #requests = new Map();
  #lastId = 0;
  #isOpen = false;
  #isReady = false;
  #isPaused = false;
  #refusals = 0;

  /** @param {Port} port */
  constructor(port) {
    this.#port = port;
  }

  /** All that is wanted. */
  get subscriptions() {
    return this.#wanted.values();
  }

  /** When the oldest request without an answer was sent, in ms since 1970. */
  get waitingSince() {
    for (const { at } of this.#requests.values()) return at;
    return undefined;
  }

  /**
   * Want a stream; whoever calls sees to it that `flush` is called soon.
   *
   * @param {string} stream
   * @param {number} rewind How many of its last publications to begin with.
   * @returns {Subscription} The one there is, if it is wanted already.
   */
  want(stream, rewind) {
    let subscription = this.#wanted.get(stream);
    if (!subscription) {
      subscription = new Subscription(stream, rewind);
      this.#wanted.set(stream, subscription);
      this.#fresh.add(subscription);
    }
    return subscription;
  }

  /**
   * Want a stream no more. `flush` is to be called soon.
   *
   * @param {Subscription} subscription
   */
  drop(subscription) {
    if (this.#wanted.get(subscription.stream) !== subscription) return;
    this.#wanted.delete(subscription.stream);
    this.#ask(subscription);
    this.#fresh.delete(subscription); // and whatever is still answered is about nothing that is asked or live
  }

  /**
   * Ask for a stream from the beginning, with its state. `flush` is to be called soon.
   *
   * @param {string} stream
   */
  refresh(stream) {
    const subscription = this.#wanted.get(stream);
    if (!subscription) return;
    subscription.offset = undefined;
    subscription.isLost = false;
    if (subscription.status === ASKED || subscription.status === LIVE) this.#ask(subscription);
  }

  /** The connection is open: ask for everything. */
  opened() {
    this.#isOpen = true;
    for (const name of ['offsets', 'snapshot']) {
      this.#request('SET_PROPERTY', [name, true], {}, (data) => {
        if (!this.#isOpen) return;
        if (data.e === 'error') {
          this.#port.fail(new FeedError('protocol', `the server has no ${name}: ${data.msg}`, { code: data.code }));
        } else if (!this.#isReady) {
          this.#isReady = true;
          this.#port.ready();
        }
      });
    }
    this.flush();
  }

  /** The connection is gone. @param {number} from The last moment at which it was heard, in ms since 1970. */
  lost(from) {
    const requests = [...this.#requests.values()];
    this.#isOpen = this.#isReady = this.#isPaused = false;
    this.#refusals = 0;
    this.#requests.clear();
    this.#leave.clear();
    this.#leaving.clear();
    for (const subscription of this.#wanted.values()) {
      if (subscription.status === LIVE && !subscription.isLost) subscription.from = from;
      subscription.isLost = subscription.isReplaying = false;
      subscription.past = 0;
      if (subscription.status !== REFUSED || subscription.refusal !== INVALID) this.#renew(subscription);
    }
    for (const { done } of requests) done({ e: 'error', msg: 'the connection was lost' });
  }

  /** Send what there is to ask. */
  flush() {
    if (!this.#isOpen || this.#isPaused) return;
    for (const names of portions([...this.#leave], (name) => name.length)) {
      for (const name of names) this.#leaving.add(name);
      this.#request('UNSUBSCRIBE', names, {}, (data) => this.#left(names, data));
    }
    this.#leave.clear();
    /** @type {Map<number | string, Subscription[]>} */
    const groups = new Map();
    for (const subscription of this.#fresh) {
      const { stream, offset, rewind, refusal } = subscription;
      if (this.#leaving.has(stream)) continue;
      this.#fresh.delete(subscription);
      const key = refusal ? stream : offset === undefined ? rewind : 0;
      const group = groups.get(key);
      if (group) group.push(subscription);
      else groups.set(key, [subscription]);
    }
    for (const group of groups.values()) {
      for (const some of portions(group, ({ stream, offset = '' }) => 2 * stream.length + offset.length)) {
        this.#subscribe(some);
      }
    }
  }

  /** The pause that `later` asked for is over. */
  resume() {
    this.#isPaused = false;
    this.flush();
  }

  /** Ask for a sign of life. */
  ping() {
    this.#request('PING', undefined, {}, () => {});
  }

  /**
   * Show another token.
   *
   * @param {string} token
   * @returns {Promise<void>}
   */
  async auth(token) {
    await this.#asked('AUTH', [token], {});
    for (const subscription of this.#wanted.values()) {
      if (subscription.status === REFUSED && subscription.refusal === NOT_PERMITTED) this.#renew(subscription);
    }
    this.flush();
  }

  /**
   * The last publications of a stream.
   *
   * @param {string} stream
   * @param {number} limit
   * @returns {Promise<{offset: string, data: any}[]>}
   */
  history(stream, limit) {
    return this.#asked('HISTORY', [stream], { limit });
  }

  /** A message has come. @param {string} text */
  message(text) {
    try {
      const message = JSON.parse(text);
      const subscription = this.#wanted.get(message.stream);
      if (subscription) this.#take(subscription, message);
      else if (message.stream.startsWith('!')) this.#control(message.data);
    } catch (cause) {
      this.#port.fail(new FeedError('protocol', 'no message of marketfeed: expected the path /, not /ws or /stream', { cause }));
    }
  }

  // Publications.

  /**
   * @param {Subscription} subscription
   * @param {Message} message
   */
  #take(subscription, message) {
    if (subscription.status !== LIVE) return;
    if (subscription.isLost) this.#forget(subscription);
    const { offset } = message;
    if (offset !== undefined) {
      if (offset === subscription.offset && !message.data.snapshot) return;
      subscription.offset = offset;
    }
    if (subscription.isReplaying) {
      subscription.count += 1;
      message.past = true;
    } else if (subscription.past > 0) {
      subscription.past -= 1;
      message.past = true;
    }
    this.#port.deliver(subscription, message);
  }

  /** Something is missing for good. @param {Subscription} subscription */
  #forget(subscription) {
    const { stream, from, to } = subscription;
    subscription.isLost = false;
    subscription.offset = undefined;
    this.#port.emit('gap', { streams: [stream], reason: 'not-recovered', from, to });
  }

  // What the daemon says of itself.

  /** @param {any} data */
  #control(data) {
    switch (data.e) {
      case 'reply':
      case 'error':
        this.#answered(data);
        break;
      case 'gap':
        this.#gap(data);
        break;
      case 'quality': {
        const streams = data.streams.filter((/** @type {string} */ stream) => this.#wanted.has(stream));
        if (streams.length) this.#port.emit('quality', { streams, level: data.level, at: data.E });
        break;
      }
      case 'serverShutdown':
        this.#port.shutdown(data.reconnectAfter);
        break;
      case 'expiring':
        this.#port.emit('expiring', { at: data.E, expiresAt: data.expiresAt });
        this.#port.expiring();
    }
  }

  /** @param {any} data */
  #answered(data) {
    const pending = this.#requests.get(data.id);
    if (pending) {
      this.#requests.delete(data.id);
      pending.done(data);
    } else if (data.e === 'error') {
      // Behind an AUTH it says that streams have ended, and names them in words only.
      if (data.code === NOT_PERMITTED) this.#request('LIST_SUBSCRIPTIONS', undefined, {}, (list) => this.#listed(list, data));
      else this.#port.emit('error', new FeedError('refused', data.msg, { code: data.code }));
    }
  }

  /**
   * @param {any} list
   * @param {any} error
   */
  #listed(list, error) {
    if (list.e === 'error') return;
    const there = new Set(list.result);
    for (const subscription of [...this.#wanted.values()]) {
      if (subscription.status === LIVE && !there.has(subscription.stream)) this.#refuse(subscription, error);
    }
  }

  /** @param {any} data */
  #gap({ streams, reason, from, to }) {
    const wanted = streams.flatMap((/** @type {string} */ stream) => this.#wanted.get(stream) ?? []);
    for (const subscription of wanted) {
      if (reason === 'sequence') {
        subscription.offset = undefined;
        subscription.isLost = false;
      } else if (to === null) {
        if (!subscription.isLost) subscription.from = from;
        subscription.isLost = false;
      } else if (subscription.status === LIVE && subscription.offset !== undefined) {
        this.#ask(subscription);
      }
    }
    const names = wanted.map((/** @type {Subscription} */ { stream }) => stream);
    if (names.length) this.#port.emit('gap', { streams: names, reason, from, to });
    this.flush();
  }

  // Requests.

  /**
   * @param {string} method
   * @param {unknown[] | undefined} params
   * @param {object} more
   * @param {(data: any) => void} done Called with the reply or the error.
   */
  #request(method, params, more, done) {
    const id = (this.#lastId += 1);
    this.#requests.set(id, { at: this.#port.now(), done });
    this.#port.send(JSON.stringify({ method, params, ...more, id }));
    return id;
  }

  /**
   * @param {string} method
   * @param {unknown[]} params
   * @param {object} more
   * @returns {Promise<any>}
   */
  #asked(method, params, more) {
    return new Promise((resolve, reject) => {
      if (method === 'AUTH' ? !this.#isOpen : !this.#isReady) throw new FeedError('not-open', `${method} needs an open connection`);
      this.#request(method, params, more, (data) => {
        if (data.e !== 'error') resolve(data.result);
        else if (data.code === undefined) reject(new FeedError('not-open', data.msg));
        else reject(new FeedError('refused', data.msg, { code: data.code, final: data.code <= INVALID }));
      });
    });
  }

  /** Ask for a stream that the server has for us, anew. @param {Subscription} subscription */
  #ask(subscription) {
    const { status, stream } = subscription;
    if (this.#isOpen && (status === ASKED || status === LIVE)) this.#leave.add(stream);
    this.#renew(subscription);
  }

  /** @param {Subscription} subscription */
  #renew(subscription) {
    subscription.status = NEW;
    subscription.isReplaying = false;
    subscription.past = 0;
    this.#fresh.add(subscription);
  }

  /** @param {Subscription[]} subscriptions */
  #subscribe(subscriptions) {
    /** @type {Record<string, string>} */
    const since = {};
    let isResume = false;
    for (const { stream, offset } of subscriptions) {
      if (offset === undefined) continue;
      since[stream] = offset;
      isResume = true;
    }
    const [{ rewind, offset }] = subscriptions;
    const more = { ...(isResume && { since }), ...(rewind && offset === undefined && { rewind }) };
    const streams = subscriptions.map(({ stream }) => stream);
    const asked = this.#request('SUBSCRIBE', streams, more, (data) => this.#subscribed(subscriptions, asked, data));
    for (const subscription of subscriptions) {
      subscription.status = ASKED;
      subscription.asked = asked;
    }
    // What was missed stands between the reply and the answer to this.
    if (isResume) this.#request('PING', undefined, {}, () => this.#replayed(subscriptions, asked));
  }

  /**
   * @param {Subscription[]} subscriptions
   * @param {number} asked
   * @param {any} data
   */
  #subscribed(subscriptions, asked, data) {
    const answered = subscriptions.filter((each) => each.status === ASKED && each.asked === asked);
    if (data.e === 'error') {
      if (this.#isOpen) this.#subscribeRefused(answered, data);
      return;
    }
    this.#refusals = 0;
    const { recovered = {}, rewound = {} } = data;
    for (const subscription of answered) {
      subscription.status = LIVE;
      subscription.refusal = 0;
      subscription.isReplaying = recovered[subscription.stream] === true;
      subscription.isLost = recovered[subscription.stream] === false;
      subscription.past = rewound[subscription.stream] ?? 0;
      subscription.to = this.#port.now();
    }
    for (const subscription of answered) {
      const { stream, isLost } = subscription;
      if (isLost) this.#tellRecovered(subscription, false);
      if (stream in rewound) this.#port.emit('rewound', { stream, count: rewound[stream] });
    }
  }

  /**
   * @param {Subscription[]} subscriptions
   * @param {any} error
   */
  #subscribeRefused(subscriptions, error) {
    if (error.code === TOO_MANY_REQUESTS) {
      for (const subscription of subscriptions) this.#renew(subscription);
      this.#pause();
    } else if (subscriptions.length > 1) {
      const half = subscriptions.length >> 1;
      this.#subscribe(subscriptions.slice(0, half));
      this.#subscribe(subscriptions.slice(half));
    } else {
      for (const subscription of subscriptions) this.#refuse(subscription, error);
    }
  }

  /**
   * @param {Subscription} subscription
   * @param {any} error
   */
  #refuse(subscription, { code, msg }) {
    const { stream } = subscription;
    subscription.status = REFUSED;
    subscription.refusal = code;
    this.#port.emit('error', new FeedError('refused', msg, { code, stream, final: code === INVALID }));
  }

  /**
   * @param {Subscription[]} subscriptions
   * @param {number} asked
   */
  #replayed(subscriptions, asked) {
    for (const subscription of subscriptions) {
      if (!subscription.isReplaying || subscription.asked !== asked) continue;
      subscription.isReplaying = false;
      this.#tellRecovered(subscription, true);
    }
  }

  /**
   * @param {Subscription} subscription
   * @param {boolean} recovered
   */
  #tellRecovered(subscription, recovered) {
    const { stream, count } = subscription;
    subscription.count = 0;
    this.#port.emit('recovered', { stream, recovered, count });
  }

  /**
   * @param {string[]} names
   * @param {any} data
   */
  #left(names, data) {
    if (!this.#isOpen) return;
    for (const name of names) this.#leaving.delete(name);
    if (data.code === TOO_MANY_REQUESTS) {
      for (const name of names) this.#leave.add(name);
      this.#pause();
      return;
    }
    for (const subscription of this.#wanted.values()) {
      if (subscription.refusal === TOO_MANY_SUBSCRIPTIONS && subscription.status === REFUSED) this.#renew(subscription);
    }
    this.flush();
  }

  #pause() {
    if (this.#isPaused) return;
    this.#isPaused = true;
    this.#refusals += 1;
    this.#port.later(this.#refusals);
  }
}

/**
 * Lists that each fit a request.
 *
 * @template T
 * @param {T[]} all
 * @param {(item: T) => number} sizeOf In characters.
 */
function* portions(all, sizeOf) {
  /** @type {T[]} */
  let some = [];
  let size = 0;
  for (const item of all) {
    const more = sizeOf(item) + 8;
    if (some.length === MOST_STREAMS || (some.length && size + more > MOST_CHARACTERS)) {
      yield some;
      some = [];
      size = 0;
    }
    some.push(item);
    size += more;
  }
  if (some.length) yield some;
}
