// The world of a feed in a test: what is around it, and sockets whose server is the test.

import { FeedError } from '../src/errors.js';
import { Surroundings, settled } from './surroundings.js';

export { settled };

export const START = 1_790_000_000_000;

/** One WebSocket; what it was sent is in `sent`, as JSON. */
export class FakeSocket {
  onopen = null;
  onmessage = null;
  onclose = null;
  onerror = null;
  sent = [];
  closedWith = null;

  constructor(url, protocols) {
    this.url = url;
    this.protocols = protocols;
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close(code) {
    this.closedWith = code;
  }

  // What the server does.

  open() {
    this.onopen?.({});
  }

  /** A message, as an object or as a text. */
  receive(message) {
    this.onmessage?.({ data: typeof message === 'string' ? message : JSON.stringify(message) });
  }

  publish(stream, data, offset) {
    this.receive({ stream, data, ...(offset !== undefined && { offset }) });
  }

  event(e, more) {
    this.receive({ stream: `!${e}`, data: { e, ...more } });
  }

  reply(id, more = {}) {
    this.event('reply', { id, result: null, ...more });
  }

  refuse(id, code, msg = 'no') {
    this.event('error', { id, code, msg });
  }

  drop(code = 1006, reason = '') {
    this.onclose?.({ code, reason });
  }

  /** The requests of a method so far. */
  asked(method) {
    return this.sent.filter((request) => request.method === method);
  }

  /** Answer all that has not been answered; `answers` has what else is in the reply to a SUBSCRIBE. */
  answer(answers = {}) {
    this.answered ??= 0;
    while (this.answered < this.sent.length) {
      const request = this.sent[this.answered];
      this.answered += 1;
      this.reply(request.id, request.method === 'SUBSCRIBE' ? answers : request.method === 'PING' ? { result: 'PONG' } : {});
    }
  }
}

export class World extends Surroundings {
  sockets = [];

  constructor() {
    super({ time: START, usual: 0.5 });
    const world = this;
    this.WebSocket = class extends FakeSocket {
      constructor(url, protocols) {
        if (world.broken) throw world.broken;
        super(url, protocols);
        world.sockets.push(this);
      }
    };
    this.environment.WebSocket = this.WebSocket;
  }

  get socket() {
    return this.sockets.at(-1);
  }

  /** Wait until the feed has opened a socket, and open it; answers to what it asks are those of `answers`. */
  async connect(answers) {
    await settled();
    const { socket } = this;
    socket.open();
    await settled();
    socket.answer(answers);
    await settled();
    return socket;
  }
}

/** Everything that a feed tells, in order. */
export function logOf(feed, { events = feed.constructor.EVENTS ?? ALL } = {}) {
  const log = [];
  for (const name of events) {
    feed.on(name, (event) => {
      if (event instanceof FeedError) {
        const { kind, final, code, stream } = event;
        log.push([name, { kind, final, ...(code !== undefined && { code }), ...(stream && { stream }) }]);
      } else log.push([name, event]);
    });
  }
  return log;
}

const ALL = ['state', 'reconnecting', 'message', 'recovered', 'rewound', 'gap', 'quality', 'expiring', 'overflow', 'error'];

export const trade = (t) => ({ e: 'trade', t, m: false, p: '1000.50', q: '10', s: 'TATA_INR' });
export const A = 'trade@TATA_INR';
export const B = 'trade@INFY_INR';
export const D = 'depth@TATA_INR';
