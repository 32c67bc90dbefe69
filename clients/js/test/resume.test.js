// Subscriptions over the ends of connections: what is asked, what is told, and that nothing comes twice.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { MarketFeed } from '../src/index.js';
import { A, B, D, START, World, logOf, settled, trade } from './world.js';

let world;
let feed;
let log;

beforeEach(() => {
  world = new World();
  feed = new MarketFeed('ws://feed.example/', { affinity: 'me', environment: world.environment });
  log = logOf(feed, { events: ['message', 'recovered', 'rewound', 'gap', 'quality', 'error'] });
});

afterEach(() => {
  feed.close();
  assert.equal(world.timers, 0, 'a timer is left');
});

/** Lose the connection, and have the next one open and unanswered. */
async function again() {
  world.socket.drop();
  log.length = 0;
  await world.pass(world.next);
  await settled();
  world.socket.open();
  return world.socket;
}

const told = (name) => log.filter(([each]) => each === name).map(([, event]) => event);
const numbers = () => told('message').map(({ data }) => data.t);
const last = (socket, method) => socket.asked(method).at(-1);

describe('a resume', () => {
  test('asks for what was missed behind the last offset, and counts what came', async () => {
    feed.on(A, () => {});
    feed.on(B, () => {});
    const first = await world.connect();
    first.publish(A, trade(1), 'x-1');
    first.publish(A, trade(2), 'x-2');
    const socket = await again();
    const { id, ...request } = last(socket, 'SUBSCRIBE');
    assert.deepEqual(request, { method: 'SUBSCRIBE', params: [A, B], since: { [A]: 'x-2' } });
    assert.equal(last(socket, 'PING').id, id + 1);
    socket.reply(id, { recovered: { [A]: true } });
    socket.publish(A, trade(3), 'x-3');
    socket.publish(B, trade(1), 'y-1');
    socket.publish(A, trade(4), 'x-4');
    socket.reply(id + 1, { result: 'PONG' });
    socket.publish(A, trade(5), 'x-5');
    assert.deepEqual(log.map(([name, event]) => [name, event.data?.t ?? event]), [
      ['message', 3], ['message', 1], ['message', 4],
      ['recovered', { stream: A, recovered: true, count: 2 }],
      ['message', 5],
    ]);
    assert.deepEqual(told('message').map(({ past }) => past), [true, undefined, true, undefined]);
  });

  test('the offset has moved on when a handler fails, and nothing comes twice', async (t) => {
    t.mock.method(console, 'error', () => {});
    const heard = [];
    feed.on(A, ({ t: number }) => { heard.push(number); throw new Error('no'); });
    const first = await world.connect();
    first.publish(A, trade(1), 'x-1');
    const socket = await again();
    assert.deepEqual(last(socket, 'SUBSCRIBE').since, { [A]: 'x-1' });
    socket.reply(last(socket, 'SUBSCRIBE').id, { recovered: { [A]: true } });
    socket.publish(A, trade(1), 'x-1');
    socket.publish(A, trade(2), 'x-2');
    assert.deepEqual(heard, [1, 2]);
  });

  test('what a handler does with the connection while it is called changes nothing of that', async () => {
    const heard = [];
    feed.on(A, ({ t: number }) => {
      heard.push(number);
      if (number === 1) world.socket.drop();
    });
    const first = await world.connect();
    first.publish(A, trade(1), 'x-1');
    await world.pass(world.next);
    await settled();
    world.socket.open();
    assert.deepEqual(last(world.socket, 'SUBSCRIBE').since, { [A]: 'x-1' });
  });

  test('of what came before the reply nothing is delivered', async () => {
    feed.on(A, () => {});
    const first = await world.connect();
    first.publish(A, trade(1), 'x-1');
    const socket = await again();
    socket.publish(A, trade(7), 'x-7');
    socket.reply(last(socket, 'SUBSCRIBE').id, { recovered: { [A]: true } });
    socket.publish(A, trade(2), 'x-2');
    assert.deepEqual(numbers(), [2]);
    const next = await again();
    assert.deepEqual(last(next, 'SUBSCRIBE').since, { [A]: 'x-2' });
  });

  test('a connection that dies amid what was missed: the next one has the rest, and all are counted', async () => {
    feed.on(A, () => {});
    const first = await world.connect();
    first.publish(A, trade(1), 'x-1');
    const second = await again();
    second.reply(last(second, 'SUBSCRIBE').id, { recovered: { [A]: true } });
    second.publish(A, trade(2), 'x-2');
    const third = await again();
    assert.deepEqual(last(third, 'SUBSCRIBE').since, { [A]: 'x-2' });
    third.answer({ recovered: { [A]: true } });
    assert.deepEqual(log, [['recovered', { stream: A, recovered: true, count: 1 }]]);
  });

  test('what is not recovered is told at once, and is a gap before the next publication', async () => {
    feed.on(A, () => {});
    const first = await world.connect();
    await world.pass(1000);
    first.publish(A, trade(1), 'x-1');
    await world.pass(2000);
    const socket = await again();
    const answered = world.time;
    socket.answer({ recovered: { [A]: false } });
    assert.deepEqual(log, [['recovered', { stream: A, recovered: false, count: 0 }]]);
    await world.pass(5000);
    socket.publish(A, trade(9), 'z-1');
    socket.publish(A, trade(10), 'z-2');
    assert.deepEqual(told('gap'), [{ streams: [A], reason: 'not-recovered', from: START + 1000, to: answered }]);
    assert.deepEqual(log.slice(1).map(([name]) => name), ['gap', 'message', 'message']);
    const next = await again();
    assert.deepEqual(last(next, 'SUBSCRIBE').since, { [A]: 'z-2' });
  });

  test('an offset that was not recovered is asked for again, until something comes', async () => {
    feed.on(A, () => {});
    const first = await world.connect();
    first.publish(A, trade(1), 'x-1');
    const second = await again();
    second.answer({ recovered: { [A]: false } });
    const third = await again();
    assert.deepEqual(last(third, 'SUBSCRIBE').since, { [A]: 'x-1' });
    third.answer({ recovered: { [A]: true } });
    third.publish(A, trade(2), 'x-2');
    assert.deepEqual(told('gap'), []);
  });

  test('a stream without an offset begins anew, and nothing is said', async () => {
    feed.on('bookTicker@TATA_INR', () => {});
    const first = await world.connect();
    first.publish('bookTicker@TATA_INR', { e: 'bookTicker' });
    const socket = await again();
    assert.equal(last(socket, 'SUBSCRIBE').since, undefined);
    assert.deepEqual(socket.asked('PING'), []);
    socket.answer();
    assert.deepEqual(log, []);
  });

  test('a snapshot with the offset that is known already is no repetition', async () => {
    feed.on(D, () => {});
    const first = await world.connect();
    first.publish(D, { e: 'depth', a: [], b: [] }, 'x-1');
    first.publish(D, { e: 'depth', a: [], b: [] }, 'x-1');
    first.publish(D, { e: 'depth', a: [], b: [], snapshot: true }, 'x-1');
    assert.deepEqual(told('message').map(({ data }) => data.snapshot), [undefined, true]);
  });
});

describe('a gap', () => {
  const gap = (more) => ({ streams: [A, 'trade@NOBODY'], reason: 'source-down', from: START, to: null, ...more });

  test('is told of the streams that are wanted, and when it ends it is asked what was missed', async () => {
    feed.on(A, () => {});
    feed.on(B, () => {});
    const socket = await world.connect();
    socket.publish(A, trade(1), 'x-1');
    socket.event('gap', gap());
    socket.event('gap', gap({ to: START + 5 }));
    assert.deepEqual(told('gap'), [
      { streams: [A], reason: 'source-down', from: START, to: null },
      { streams: [A], reason: 'source-down', from: START, to: START + 5 },
    ]);
    assert.deepEqual(last(socket, 'UNSUBSCRIBE').params, [A]);
    socket.publish(A, trade(8), 'z-1'); // it is replayed, or lost
    socket.reply(last(socket, 'UNSUBSCRIBE').id);
    assert.deepEqual(last(socket, 'SUBSCRIBE').since, { [A]: 'x-1' });
    socket.reply(last(socket, 'SUBSCRIBE').id, { recovered: { [A]: false } });
    socket.publish(A, trade(9), 'z-2');
    assert.deepEqual(told('gap').at(-1), { streams: [A], reason: 'not-recovered', from: START, to: world.time });
    assert.deepEqual(numbers(), [1, 9]);
  });

  test('a stream without an offset has nothing to ask for', async () => {
    feed.on(A, () => {});
    const socket = await world.connect();
    socket.event('gap', gap({ to: START + 5 }));
    assert.deepEqual(socket.asked('UNSUBSCRIBE'), []);
  });

  test('while it lasts nothing is lost yet: its source may be able to say more later', async () => {
    feed.on(A, () => {});
    const first = await world.connect();
    first.publish(A, trade(1), 'x-1');
    const socket = await again();
    socket.answer({ recovered: { [A]: false } });
    socket.event('gap', gap());
    socket.event('gap', gap({ to: START + 5 }));
    socket.reply(last(socket, 'UNSUBSCRIBE').id);
    assert.deepEqual(last(socket, 'SUBSCRIBE').since, { [A]: 'x-1' });
    socket.answered = socket.sent.length - 2;
    socket.answer({ recovered: { [A]: true } });
    socket.publish(A, trade(2), 'x-2');
    assert.deepEqual(told('gap').map(({ reason }) => reason), ['source-down', 'source-down']);
    assert.deepEqual(told('recovered').map(({ recovered }) => recovered), [false, true]);
  });

  test('of the ids is final: there is nothing to ask for behind the offset', async () => {
    feed.on(A, () => {});
    const first = await world.connect();
    first.publish(A, trade(1), 'x-1');
    first.event('gap', gap({ reason: 'sequence', to: START }));
    assert.deepEqual(first.asked('UNSUBSCRIBE'), []);
    const socket = await again();
    assert.equal(last(socket, 'SUBSCRIBE').since, undefined);
  });

  test('the end of a connection while the question waits', async () => {
    feed.on(A, () => {});
    const first = await world.connect();
    first.publish(A, trade(1), 'x-1');
    first.event('gap', gap({ to: START + 5 }));
    const socket = await again();
    assert.deepEqual(last(socket, 'SUBSCRIBE').since, { [A]: 'x-1' });
    assert.deepEqual(socket.asked('UNSUBSCRIBE'), []);
  });

  test('the quality is told', async () => {
    feed.on(A, () => {});
    const socket = await world.connect();
    socket.event('quality', { streams: [A, B], level: 'thinned', E: START });
    socket.event('quality', { streams: [B], level: 'live', E: START });
    assert.deepEqual(log, [['quality', { streams: [A], level: 'thinned', at: START }]]);
  });
});

describe('rewind', () => {
  test('a stream begins with what there was, and says how many', async () => {
    feed.on(A, () => {}, { rewind: 5 });
    feed.on(B, () => {});
    await settled();
    const { socket } = world;
    socket.open();
    const [one, other] = socket.asked('SUBSCRIBE');
    assert.deepEqual([one.params, one.rewind, other.params, other.rewind], [[A], 5, [B], undefined]);
    socket.reply(one.id, { rewound: { [A]: 2 } });
    for (const t of [1, 2, 3]) socket.publish(A, trade(t), `x-${t}`);
    assert.deepEqual(told('rewound'), [{ stream: A, count: 2 }]);
    assert.deepEqual(told('message').map(({ past }) => past), [true, true, undefined]);
    const next = await again();
    assert.deepEqual(last(next, 'SUBSCRIBE').since, { [A]: 'x-3' });
    assert.ok(next.asked('SUBSCRIBE').every(({ rewind }) => rewind === undefined));
  });

  test('once more, as long as nothing has come', async () => {
    feed.on(A, () => {}, { rewind: 5 });
    await world.connect({ rewound: { [A]: 0 } });
    const next = await again();
    assert.equal(last(next, 'SUBSCRIBE').rewind, 5);
  });
});

describe('refresh', () => {
  test('asks for the state of a stream again', async () => {
    feed.on(D, () => {});
    const socket = await world.connect();
    socket.publish(D, { e: 'depth', a: [], b: [] }, 'x-1');
    feed.refresh(D);
    feed.refresh('depth@NOBODY');
    await settled();
    socket.reply(last(socket, 'UNSUBSCRIBE').id);
    assert.equal(socket.asked('SUBSCRIBE').length, 2);
    assert.equal(last(socket, 'SUBSCRIBE').since, undefined);
  });
});

describe('what the server refuses', () => {
  const error = (code, stream) => ({ kind: 'refused', final: code === 2, code, ...(stream && { stream }) });

  /** Answer as a daemon that has everything but these. */
  function answerBut(socket, bad, code) {
    for (socket.answered ??= 0; socket.answered < socket.sent.length; ) {
      const { id, method, params } = socket.sent[socket.answered];
      socket.answered += 1;
      if (method === 'SUBSCRIBE' && params.some((stream) => bad.includes(stream))) socket.refuse(id, code);
      else socket.reply(id);
    }
  }

  test('one bad stream among many is found, and the others are had', async () => {
    const streams = Array.from({ length: 50 }, (_, number) => `trade@M${number}`);
    for (const stream of streams) feed.on(stream, () => {});
    await settled();
    world.socket.open();
    answerBut(world.socket, ['trade@M7', 'trade@M31'], 2);
    assert.deepEqual(new Set(told('error').map(({ stream }) => stream)), new Set(['trade@M7', 'trade@M31']));
    assert.deepEqual(told('error')[0], error(2, told('error')[0].stream));
    for (const stream of streams) world.socket.publish(stream, trade(1));
    assert.equal(told('message').length, 48);
    const next = await again();
    assert.equal(next.asked('SUBSCRIBE').length, 1);
    assert.equal(last(next, 'SUBSCRIBE').params.length, 48); // what was said to be wrong is not asked for again
  });

  test('what is not permitted is asked for again on the next connection, apart from the others', async () => {
    feed.on(A, () => {});
    feed.on(B, () => {});
    await settled();
    world.socket.open();
    answerBut(world.socket, [B], 5);
    assert.deepEqual(told('error'), [error(5, B)]);
    const next = await again();
    assert.deepEqual(next.asked('SUBSCRIBE').map(({ params }) => params), [[A], [B]]);
  });

  test('what was one too many is asked for when another is given up', async () => {
    const stop = feed.on(A, () => {});
    feed.on(B, () => {});
    await settled();
    world.socket.open();
    answerBut(world.socket, [B], 4);
    assert.deepEqual(told('error'), [error(4, B)]);
    stop();
    await settled();
    answerBut(world.socket, [], 4);
    assert.deepEqual(last(world.socket, 'SUBSCRIBE').params, [B]);
  });

  test('what came too fast is asked for again after a pause, each longer than the last', async () => {
    const stop = feed.on(B, () => {});
    await world.connect();
    const { socket } = world;
    feed.on(A, () => {});
    stop();
    await settled();
    const pauses = [];
    for (let time = 0; time < 3; time += 1) {
      const refused = [last(socket, 'UNSUBSCRIBE'), last(socket, 'SUBSCRIBE')];
      for (const { id } of refused) socket.refuse(id, 7);
      await settled();
      assert.equal(last(socket, 'SUBSCRIBE').id, refused[1].id);
      pauses.push(world.next);
      await world.pass(world.next);
    }
    assert.deepEqual(pauses, [1500, 3000, 6000]);
    assert.deepEqual([last(socket, 'UNSUBSCRIBE').params, last(socket, 'SUBSCRIBE').params], [[B], [A]]);
    socket.reply(last(socket, 'SUBSCRIBE').id);
    socket.publish(A, trade(1));
    assert.deepEqual(numbers(), [1]);
    assert.deepEqual(told('error'), []);
  });

  test('what nobody wants any more when it is refused is not asked for again, and nothing is told of it', async () => {
    for (const code of [2, 5, 7]) {
      const stops = [feed.on(A, () => {}), feed.on(B, () => {})];
      const socket = await world.connect();
      socket.drop();
      await world.pass(world.next);
      await settled();
      world.socket.open();
      const { id } = last(world.socket, 'SUBSCRIBE');
      for (const stop of stops) stop();
      await settled();
      world.socket.refuse(id, code);
      await settled();
      assert.equal(world.socket.asked('SUBSCRIBE').length, 1, `${code}`);
      assert.deepEqual(told('error').filter(({ kind }) => kind === 'refused'), []);
      world.socket.drop();
      await world.pass(world.next);
    }
  });

  test('a stream that is given up amid what was missed is told no more', async () => {
    const stop = feed.on(A, () => {});
    const first = await world.connect();
    first.publish(A, trade(1), 'x-1');
    const socket = await again();
    socket.reply(last(socket, 'SUBSCRIBE').id, { recovered: { [A]: true } });
    stop();
    socket.reply(last(socket, 'PING').id, { result: 'PONG' });
    assert.deepEqual(log, []);
  });

  test('a connection that ends during the pause', async () => {
    feed.on(A, () => {});
    const socket = await world.connect();
    feed.on(B, () => {});
    await settled();
    socket.refuse(last(socket, 'SUBSCRIBE').id, 7);
    const next = await again();
    assert.deepEqual(last(next, 'SUBSCRIBE').params.toSorted(), [B, A].toSorted());
    assert.equal(world.timers, 1);
  });

  test('a thousand streams are asked for in requests that a daemon takes', async () => {
    for (let number = 0; number < 1000; number += 1) feed.on(`trade@${'M'.repeat(60)}${number}`, () => {});
    const first = await world.connect();
    const asked = first.asked('SUBSCRIBE');
    assert.equal(asked.flatMap(({ params }) => params).length, 1000);
    for (let number = 0; number < 1000; number += 1) {
      first.publish(`trade@${'M'.repeat(60)}${number}`, trade(1), `${'9'.repeat(40)}-${number}`);
    }
    const next = await again();
    const requests = next.asked('SUBSCRIBE');
    assert.equal(requests.flatMap(({ params }) => params).length, 1000);
    for (const request of [...asked, ...requests]) assert.ok(JSON.stringify(request).length < 20_000);
  });

  test('an error without a stream is told', async () => {
    const socket = await world.connect();
    socket.event('error', { code: 7, msg: 'too many requests' });
    assert.deepEqual(log, [['error', error(7)]]);
  });

  test('a server without offsets, or that says what is no message, is no marketfeed', async () => {
    for (const bad of ['{', '[]', 'null', '1', '{"stream":1}', '{"stream":"!reply"}', '{"result":null,"id":1}',
      '{"stream":"!gap","data":null}', '{"stream":"!gap","data":{"e":"gap"}}', '{"stream":"!quality","data":{"e":"quality"}}']) {
      const socket = await world.connect();
      socket.receive(bad);
      assert.deepEqual(told('error'), [{ kind: 'protocol', final: false }], bad);
      log.length = 0;
      await world.pass(world.next);
    }
    await settled();
    world.socket.open();
    world.socket.refuse(world.socket.sent[0].id, 0, 'unknown property');
    assert.deepEqual(told('error'), [{ kind: 'protocol', final: false, code: 0 }]);
  });

  test('what nobody has asked for is left aside', async () => {
    const socket = await world.connect();
    socket.publish(A, { e: 'error', code: 5 });
    socket.publish('!miniTicker@arr', []);
    socket.event('news', {});
    socket.reply(99);
    assert.deepEqual(log, []);
    assert.equal(feed.state, 'open');
  });
});
