// What is true whatever happens: of decimals, of a book's levels, of the pauses, and of a client and a server in between
// which connections end at any moment.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { Backoff } from '../src/backoff.js';
import { MarketFeed } from '../src/index.js';
import { compare } from '../src/decimals.js';
import { Ladder } from '../src/ladder.js';
import { Queue } from '../src/queue.js';
import { World, settled } from './world.js';

// Decimals.

const decimal = fc
  .record({
    sign: fc.constantFrom('', '', '', '-', '+'),
    whole: fc.stringMatching(/^\d{1,20}$/),
    fraction: fc.option(fc.stringMatching(/^\d{0,20}$/)),
    exponent: fc.option(fc.integer({ min: -99, max: 99 })),
  })
  .map(({ sign, whole, fraction, exponent }) =>
    `${sign}${whole}${fraction === null ? '' : `.${fraction}`}${exponent === null ? '' : `e${exponent}`}`);

/** As a whole number of 1e-150. */
function exact(text) {
  const [mantissa, exponent = '0'] = text.toLowerCase().split('e');
  const [whole, fraction = ''] = mantissa.split('.');
  const digits = BigInt(`${whole.replace(/[+-]/, '')}${fraction}`) * 10n ** BigInt(150 + Number(exponent) - fraction.length);
  return text.startsWith('-') ? -digits : digits;
}

/** Two that are close to each other, as often as not. */
const pair = fc.oneof(
  fc.tuple(decimal, decimal),
  decimal.map((text) => [text, text.includes('e') ? text : `${text.includes('.') ? text : `${text}.`}000`]),
  fc.tuple(fc.stringMatching(/^\d{17,25}$/), fc.integer({ min: 0, max: 3 })).map(([text, more]) => [text, String(BigInt(text) + BigInt(more))]),
);

describe('decimals', () => {
  test('are compared exactly', () => {
    fc.assert(fc.property(pair, ([one, other]) => {
      const difference = exact(one) - exact(other);
      assert.equal(Math.sign(compare(one, other)) + 0, difference < 0n ? -1 : difference > 0n ? 1 : 0);
    }), { numRuns: 2000 });
  });
});

// The levels of a book.

const price = fc.oneof(fc.integer({ min: 1, max: 30 }).map((n) => `${n}`), fc.integer({ min: 1, max: 30 }).map((n) => `${n}.00`),
  fc.constantFrom('0.1', '0.10', '0.10000000000000000001', '1e1', '100000000000000000001', '100000000000000000002'));
const quantity = fc.constantFrom('0', '0.00000000', '1', '2.50', '0e7');
const levels = fc.array(fc.tuple(price, quantity), { maxLength: 8 });
const depth = fc.record({ a: levels, b: levels, snapshot: fc.option(fc.boolean(), { nil: undefined }) });

describe('the levels of a book', () => {
  test('are those that a slow and simple book has', () => {
    fc.assert(fc.property(fc.array(depth, { maxLength: 30 }), (messages) => {
      const ladder = new Ladder();
      let sides = { a: new Map(), b: new Map() };
      for (const message of messages) {
        ladder.apply(message);
        if (message.snapshot) sides = { a: new Map(), b: new Map() };
        for (const name of ['a', 'b']) {
          for (const [p, q] of message[name]) {
            if (Number(q)) sides[name].set(exact(p), [p, q]);
            else sides[name].delete(exact(p));
          }
        }
        const sorted = (side, sign) => [...side].sort(([one], [other]) => (one < other ? -sign : sign)).map(([, level]) => level);
        assert.deepEqual(ladder.asks(Infinity), sorted(sides.a, 1));
        assert.deepEqual(ladder.bids(Infinity), sorted(sides.b, -1));
        assert.deepEqual(ladder.asks(2), sorted(sides.a, 1).slice(0, 2));
        assert.equal(ladder.size, sides.a.size + sides.b.size);
      }
    }), { numRuns: 500 });
  });
});

// The pauses.

describe('the pauses', () => {
  test('are within bounds that double up to the last, and begin anew behind what lasted', () => {
    const ends = fc.array(fc.record({ lasted: fc.nat(20_000), weight: fc.constantFrom(1, 1, 5), chance: fc.double({ min: 0, max: 0.999, noNaN: true }) }));
    fc.assert(fc.property(ends, (all) => {
      let chance = 0;
      let failures = 0;
      const backoff = new Backoff({ base: 500, most: 30_000, stable: 10_000, random: () => chance });
      for (const end of all) {
        ({ chance } = end);
        backoff.failed(end.lasted, end.weight);
        failures = Math.max((end.lasted >= 10_000 ? 0 : failures) + 1, end.weight);
        const bound = Math.min(30_000, 500 * 2 ** (failures - 1));
        assert.equal(backoff.failures, failures);
        assert.equal(backoff.pause(), Math.round(chance * bound));
        assert.equal(backoff.pause(1234), 1234);
      }
    }));
  });
});

// The queue.

describe('the queue of a loop', () => {
  test('keeps the newest, in order', async () => {
    const steps = fc.array(fc.oneof(fc.constant('push'), fc.constant('push'), fc.constant('next')), { maxLength: 60 });
    await fc.assert(fc.asyncProperty(steps, fc.integer({ min: 1, max: 5 }), async (all, limit) => {
      let overflows = 0;
      const queue = new Queue(limit, { begin() {}, end() {}, overflow: () => { overflows += 1; } });
      const model = [];
      const taken = [];
      const expected = [];
      let [number, waiting, dropped, calls] = [0, 0, 0, 0];
      for (const step of all) {
        if (step === 'push') {
          number += 1;
          queue.push(number);
          if (waiting) { waiting -= 1; expected.push(number); } else model.push(number);
          if (model.length > limit) { model.shift(); dropped += 1; }
        } else {
          const call = (calls += 1) - 1;
          queue.next().then(({ value }) => { taken[call] = value; });
          if (model.length) expected.push(model.shift());
          else waiting += 1;
        }
      }
      await settled();
      assert.deepEqual(taken, expected);
      assert.equal(queue.dropped, dropped);
      assert.ok(overflows <= dropped && (dropped === 0 || overflows > 0));
    }));
  });
});

// A client and a server.

/** A daemon with numbered trades, which keeps some of them, and may forget them all. */
class Daemon {
  kept = 5;
  epoch = 0;
  isDown = false;
  streams = new Map();
  connections = new Set();

  stream(name) {
    if (!this.streams.has(name)) this.streams.set(name, { number: 0, first: 1 });
    return this.streams.get(name);
  }

  offset(number) {
    return `e${this.epoch}-${number}`;
  }

  publish(name) {
    const stream = this.stream(name);
    stream.number += 1;
    stream.first = Math.max(stream.first, stream.number - this.kept + 1);
    if (this.isDown) return;
    for (const connection of this.connections) {
      if (connection.streams.has(name)) connection.tell({ stream: name, data: { e: 'trade', t: stream.number }, offset: this.offset(stream.number) });
    }
  }

  /** Nothing that was published before is known any more. */
  forget() {
    this.epoch += 1;
    for (const stream of this.streams.values()) stream.first = stream.number + 1;
  }

  gap(to) {
    this.isDown = to === null;
    if (!this.isDown) this.forget();
    for (const connection of this.connections) {
      const streams = [...connection.streams];
      if (streams.length) connection.tell({ stream: '!gap', data: { e: 'gap', streams, reason: 'source-down', from: 1, to } });
    }
  }
}

/** One connection: what either says waits, until it is let through. */
class Connection {
  streams = new Set();
  toClient = [];
  read = 0;

  constructor(daemon, socket) {
    this.daemon = daemon;
    this.socket = socket;
    daemon.connections.add(this);
  }

  tell(message) {
    this.toClient.push(message);
  }

  /** The daemon reads one request. */
  hear() {
    const request = this.socket.sent[this.read];
    if (!request) return;
    this.read += 1;
    const { method, params, since = {}, id } = request;
    const more = {};
    const after = [];
    if (method === 'SUBSCRIBE') {
      for (const name of params) {
        assert.ok(!this.streams.has(name), 'subscribed twice');
        this.streams.add(name);
        const stream = this.daemon.stream(name);
        if (!(name in since)) continue;
        const [epoch, number] = since[name].slice(1).split('-').map(Number);
        const isKnown = !this.daemon.isDown && epoch === this.daemon.epoch && number + 1 >= stream.first;
        (more.recovered ??= {})[name] = isKnown;
        for (let missed = number + 1; isKnown && missed <= stream.number; missed += 1) {
          after.push({ stream: name, data: { e: 'trade', t: missed }, offset: this.daemon.offset(missed) });
        }
      }
      if (this.daemon.isDown) after.push({ stream: '!gap', data: { e: 'gap', streams: params, reason: 'source-down', from: 1, to: null } });
    } else if (method === 'UNSUBSCRIBE') for (const name of params) this.streams.delete(name);
    this.tell({ stream: '!reply', data: { e: 'reply', id, result: null, ...more } });
    for (const message of after) this.tell(message);
  }

  /** The client hears one message. */
  let() {
    if (this.toClient.length) this.socket.receive(this.toClient.shift());
  }

  end() {
    this.daemon.connections.delete(this);
    this.socket.drop();
  }
}

const NAMES = ['trade@A', 'trade@B', 'trade@C'];
const name = fc.constantFrom(...NAMES);
const step = fc.oneof(
  { weight: 8, arbitrary: fc.record({ what: fc.constant('publish'), name }) },
  { weight: 8, arbitrary: fc.record({ what: fc.constant('let'), count: fc.integer({ min: 1, max: 8 }) }) },
  { weight: 5, arbitrary: fc.record({ what: fc.constant('hear'), count: fc.integer({ min: 1, max: 4 }) }) },
  { weight: 3, arbitrary: fc.record({ what: fc.constant('listen'), name }) },
  { weight: 2, arbitrary: fc.record({ what: fc.constant('stop'), name }) },
  { weight: 2, arbitrary: fc.record({ what: fc.constant('drop') }) },
  { weight: 5, arbitrary: fc.record({ what: fc.constant('pass') }) },
  { weight: 1, arbitrary: fc.record({ what: fc.constant('down') }) },
  { weight: 1, arbitrary: fc.record({ what: fc.constant('up') }) },
  { weight: 1, arbitrary: fc.record({ what: fc.constant('forget') }) },
  { weight: 1, arbitrary: fc.record({ what: fc.constant('wake') }) },
);

async function play(steps) {
  const world = new World();
  const daemon = new Daemon();
  const feed = new MarketFeed('ws://feed.example/', { environment: world.environment });
  let connection;
  const listening = new Map();
  /** For each stream, since somebody listens: what came, and the gaps, in order. */
  const heard = new Map(NAMES.map((each) => [each, []]));
  feed.on('gap', ({ streams, reason }) => {
    for (const each of streams) if (reason === 'not-recovered') heard.get(each).push('gap');
  });
  feed.on('error', ({ kind }) => assert.equal(kind, 'closed'));
  const connect = async () => {
    await settled();
    if (feed.state !== 'connecting' || connection) return;
    connection = new Connection(daemon, world.socket);
    world.socket.open();
  };
  const settle = async () => {
    for (let round = 0; round < 50; round += 1) {
      if (feed.state === 'waiting') await world.pass(world.next);
      await connect();
      while (connection.read < connection.socket.sent.length || connection.toClient.length) {
        connection.hear();
        connection.let();
        await settled();
      }
    }
  };
  await connect();
  for (const { what, name: which, count } of steps) {
    if (what === 'publish') daemon.publish(which);
    else if (what === 'let') for (let time = 0; time < count; time += 1) connection?.let();
    else if (what === 'hear') for (let time = 0; time < count; time += 1) connection?.hear();
    else if (what === 'listen' && !listening.has(which)) {
      heard.get(which).length = 0;
      listening.set(which, feed.on(which, ({ t }) => heard.get(which).push(t)));
    } else if (what === 'stop') {
      listening.get(which)?.();
      listening.delete(which);
    } else if (what === 'drop') {
      connection?.end();
      connection = undefined;
    } else if (what === 'pass') {
      if (feed.state === 'waiting') await world.pass(world.next);
      await connect();
    } else if (what === 'down') {
      if (!daemon.isDown) daemon.gap(null);
    } else if (what === 'up') {
      if (daemon.isDown) daemon.gap(2);
    } else if (what === 'forget') {
      if (!daemon.isDown) {
        for (const each of [...daemon.connections]) each.end();
        connection = undefined;
        daemon.forget();
      }
    } else if (what === 'wake') world.wake();
    await settled();
  }
  if (daemon.isDown) daemon.gap(2);
  await settle();
  for (const each of NAMES) daemon.publish(each);
  await settle();
  for (const [each, stop] of listening) {
    const all = heard.get(each);
    let last;
    let isGap = false;
    for (const item of all) {
      if (item === 'gap') isGap = true;
      else {
        if (last !== undefined) assert.ok(isGap ? item > last : item === last + 1, `${each}: ${item} behind ${last}: ${all}`);
        last = item;
        isGap = false;
      }
    }
    assert.equal(last, daemon.stream(each).number, `${each}: the last one is not there: ${all}`);
    stop();
  }
  feed.close();
  assert.equal(world.timers, 0);
  assert.equal(world.watchers.size, 0);
}

describe('a client and a server', () => {
  test('each publication comes once and in order, or a gap says that some are missing', async () => {
    await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 80, size: 'max' }), play), { numRuns: Number(process.env.RUNS ?? 200) });
  });
});
