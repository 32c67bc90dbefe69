import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { Book, MarketFeed } from '../src/book.js';
import { D, START, World, settled } from './world.js';

let world;
let feed;

beforeEach(() => {
  world = new World();
  feed = new MarketFeed('ws://feed.example/', { affinity: 'me', environment: world.environment });
});

afterEach(() => {
  feed.close();
  assert.equal(world.timers, 0, 'a timer is left');
  assert.equal(world.frames.size, 0, 'a picture is still waited for');
});

const depth = (more) => ({ e: 'depth', a: [], b: [], ...more });
const whole = depth({ U: 1, u: 10, a: [['1001.00', '5'], ['1002.00', '1']], b: [['1000.00', '7']], snapshot: true });
const last = (socket, method) => socket.asked(method).at(-1);

async function again(answers) {
  world.socket.drop();
  await world.pass(world.next);
  await settled();
  world.socket.open();
  if (answers) world.socket.answer(answers);
  return world.socket;
}

/** A book that is live. */
async function live() {
  const book = feed.book('TATA_INR');
  const states = [];
  book.on('change', ({ state }) => states.at(-1) === state || states.push(state));
  const socket = await world.connect();
  socket.publish(D, whole, 'x-1');
  return { book, states, socket };
}

describe('a book', () => {
  test('begins with the whole of it, and changes with each message', async () => {
    const { book, socket } = await live();
    assert.ok(book instanceof Book);
    assert.deepEqual([book.market, book.state, book.lastUpdateId, book.size], ['TATA_INR', 'live', 10, 3]);
    assert.deepEqual([book.bids(), book.asks(1)], [[['1000.00', '7']], [['1001.00', '5']]]);
    socket.publish(D, depth({ U: 11, u: 12, a: [['1001.0', '0'], ['1000.50', '2']], b: [['999.95', '1']] }), 'x-2');
    assert.deepEqual(book.asks(), [['1000.50', '2'], ['1002.00', '1']]);
    assert.deepEqual(book.bids(), [['1000.00', '7'], ['999.95', '1']]);
    assert.equal(book.lastUpdateId, 12);
    assert.deepEqual(book.bids(0), []);
  });

  test('without the whole of it there is none', async () => {
    const book = feed.book('TATA_INR');
    const socket = await world.connect();
    socket.publish(D, depth({ U: 1, u: 1, a: [['1', '1']] }), 'x-1');
    assert.deepEqual([book.state, book.size], ['missing', 0]);
  });

  test('a lost connection makes it stale, and it is live again when all that was missed has come', async () => {
    const { book, states, socket: first } = await live();
    first.drop();
    assert.deepEqual([book.state, book.size], ['stale', 3]);
    await world.pass(world.next);
    await settled();
    const { socket } = world;
    socket.open();
    assert.deepEqual(last(socket, 'SUBSCRIBE').since, { [D]: 'x-1' });
    socket.reply(last(socket, 'SUBSCRIBE').id, { recovered: { [D]: true } });
    socket.publish(D, depth({ U: 11, u: 11, b: [['1000.25', '1']] }), 'x-2');
    assert.equal(book.state, 'stale');
    socket.reply(last(socket, 'PING').id, { result: 'PONG' });
    assert.equal(book.state, 'live');
    assert.deepEqual(book.bids(1), [['1000.25', '1']]);
    assert.deepEqual(states, ['live', 'stale', 'live']);
  });

  test('a whole one among what was missed makes it live no earlier', async () => {
    const { book } = await live();
    const socket = await again();
    socket.reply(last(socket, 'SUBSCRIBE').id, { recovered: { [D]: true } });
    socket.publish(D, { ...whole, u: 20 }, 'x-2');
    assert.equal(book.state, 'stale');
    socket.reply(last(socket, 'PING').id, { result: 'PONG' });
    assert.equal(book.state, 'live');
  });

  test('what was not recovered is replaced by a whole one', async () => {
    const { book, states } = await live();
    const socket = await again({ recovered: { [D]: false } });
    assert.equal(book.state, 'stale');
    socket.publish(D, { ...whole, u: 99 }, 'z-1');
    assert.deepEqual([book.state, book.lastUpdateId], ['live', 99]);
    assert.deepEqual(states, ['live', 'stale', 'missing', 'live']);
  });

  test('what was not recovered and goes on with a change is missing', async () => {
    const { book } = await live();
    const socket = await again({ recovered: { [D]: false } });
    socket.publish(D, depth({ U: 98, u: 99 }), 'z-1');
    assert.deepEqual([book.state, book.size, book.lastUpdateId], ['missing', 0, undefined]);
    socket.publish(D, whole, 'z-2');
    assert.equal(book.state, 'live');
  });

  test('an open gap makes it stale, and its end asks what was missed', async () => {
    const { book, socket } = await live();
    const gap = { streams: [D], reason: 'source-down', from: START };
    socket.event('gap', { ...gap, to: null });
    assert.equal(book.state, 'stale');
    socket.event('gap', { ...gap, to: START + 1 });
    assert.equal(book.state, 'stale');
    socket.reply(last(socket, 'UNSUBSCRIBE').id);
    socket.reply(last(socket, 'SUBSCRIBE').id, { recovered: { [D]: true } });
    socket.reply(last(socket, 'PING').id);
    assert.equal(book.state, 'live');
  });

  test('a gap that is told only when it is over makes it stale, too', async () => {
    const { book, socket } = await live();
    socket.event('gap', { streams: [D], reason: 'source-down', from: START, to: START + 1 });
    assert.equal(book.state, 'stale');
  });

  test('where there are no offsets the state is asked for behind a gap', async () => {
    const book = feed.book('TATA_INR');
    const socket = await world.connect();
    socket.publish(D, whole);
    socket.event('gap', { streams: [D], reason: 'source-down', from: START, to: START + 1 });
    await settled();
    socket.reply(last(socket, 'UNSUBSCRIBE').id);
    assert.equal(socket.asked('SUBSCRIBE').length, 2);
    socket.reply(last(socket, 'SUBSCRIBE').id);
    assert.equal(book.state, 'stale');
    socket.publish(D, whole);
    assert.equal(book.state, 'live');
  });

  test('gaps of other streams are not its own', async () => {
    const { book, socket } = await live();
    feed.on('trade@TATA_INR', () => {});
    socket.event('gap', { streams: ['trade@TATA_INR'], reason: 'sequence', from: START, to: START });
    assert.equal(book.state, 'live');
  });

  test('a jump of the ids makes it missing, told or not', async () => {
    for (const isTold of [true, false]) {
      const { book, socket } = await live();
      if (isTold) socket.event('gap', { streams: [D], reason: 'sequence', from: START, to: START });
      socket.publish(D, depth({ U: 13, u: 13 }), 'x-3');
      assert.equal(book.state, 'missing');
      book.close();
      await again();
    }
  });

  test('ids that overlap, or that only some messages have, are no jump', async () => {
    const { book, socket } = await live();
    socket.publish(D, depth({ U: 5, u: 12 }), 'x-2');
    socket.publish(D, depth({}), 'x-3');
    socket.publish(D, depth({ U: 20, u: 20 }), 'x-4');
    assert.equal(book.state, 'live');
  });

  test('what is no depth message makes it missing', async () => {
    for (const bad of [{ a: null, b: [] }, { a: [1], b: [] }, { a: [], b: [null] }, { a: 'x' }]) {
      const { book, socket } = await live();
      socket.publish(D, { e: 'depth', ...bad }, 'x-2');
      assert.equal(book.state, 'missing', JSON.stringify(bad));
      socket.publish(D, whole, 'x-3');
      assert.equal(book.state, 'live');
      book.close();
      await again();
    }
  });

  test('numbers of an engine are spelled', async () => {
    const { book, socket } = await live();
    socket.publish(D, depth({ U: 11, u: 11, b: [[1000, 0], [999.5, 2]] }), 'x-2');
    assert.deepEqual(book.bids(), [['999.5', '2']]);
  });

  test('it may have a rate', async () => {
    const book = feed.book('TATA_INR', { rate: '100ms' });
    const socket = await world.connect();
    assert.deepEqual(last(socket, 'SUBSCRIBE').params, [`${D}@100ms`]);
    socket.publish(`${D}@100ms`, whole, 'x-1');
    assert.equal(book.state, 'live');
  });

  test('a market that cannot be one is refused', () => {
    assert.throws(() => feed.book('depth@TATA_INR'), /book: expected a market, as TATA_INR, not depth@TATA_INR/);
    assert.throws(() => feed.book(''), /expected a market/);
  });
});

describe('who follows a book', () => {
  test('shares it, and ends it with the last', async () => {
    const { book, socket } = await live();
    const other = feed.book('TATA_INR');
    assert.equal(other.state, 'live');
    assert.equal(socket.asked('SUBSCRIBE').length, 1);
    book.close();
    book.close();
    await settled();
    assert.deepEqual(socket.asked('UNSUBSCRIBE'), []);
    other.close();
    await settled();
    assert.equal(socket.asked('UNSUBSCRIBE').length, 1);
  });

  test('has the state of a stream that somebody listens to already', async () => {
    feed.on(D, () => {});
    const socket = await world.connect();
    feed.book('TATA_INR');
    await settled();
    socket.reply(last(socket, 'UNSUBSCRIBE').id);
    assert.equal(socket.asked('SUBSCRIBE').length, 2);
  });

  test('hears of each change, or once for each picture, until it stops', async () => {
    const { book, socket } = await live();
    const heard = [];
    const stops = [
      book.on('change', (which) => heard.push(['change', which === book])),
      book.on('frame', (which) => heard.push(['frame', which === book])),
    ];
    socket.publish(D, depth({ U: 11, u: 11 }), 'x-2');
    socket.publish(D, depth({ U: 12, u: 12 }), 'x-3');
    assert.deepEqual(heard, [['change', true], ['change', true]]);
    world.draw();
    assert.equal(heard.length, 3);
    socket.publish(D, depth({ U: 13, u: 13 }), 'x-4');
    for (const stop of stops) stop();
    world.draw();
    assert.equal(heard.length, 4);
    assert.throws(() => book.on('changes', () => {}), /expected change or frame, not changes/);
    assert.throws(() => book.on('change'), /change: expected a function/);
  });

  test('and fails is in nobody\'s way', async () => {
    const errors = [];
    feed.on('error', ({ kind }) => errors.push(kind));
    const { book, socket } = await live();
    book.on('change', () => { throw new Error('no'); });
    book.on('frame', () => { throw new Error('no'); });
    socket.publish(D, depth({ U: 11, u: 11, a: [['1000.75', '1']] }), 'x-2');
    world.draw();
    assert.deepEqual(errors, ['handler', 'handler']);
    assert.deepEqual(book.asks(1), [['1000.75', '1']]);
  });

  test('may close it while it is told', async () => {
    const { book, socket } = await live();
    book.on('change', () => book.close());
    socket.publish(D, depth({ U: 11, u: 11 }), 'x-2');
    await settled();
    assert.equal(socket.asked('UNSUBSCRIBE').length, 1);
  });

  test('sees that it is stale when the feed is closed', async () => {
    const { book } = await live();
    book.on('frame', () => {});
    feed.close();
    assert.equal(book.state, 'stale');
  });
});
