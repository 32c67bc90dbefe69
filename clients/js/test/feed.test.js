import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { FeedError, MarketFeed } from '../src/index.js';
import { A, B, D, START, World, logOf, settled, trade } from './world.js';

let world;
let feed;

function open(options = {}, url = 'ws://feed.example/') {
  feed = new MarketFeed(url, { affinity: 'me', environment: world.environment, ...options });
  return feed;
}

beforeEach(() => {
  world = new World();
});

afterEach(() => {
  feed?.close();
  assert.equal(world.timers, 0, 'a timer is left');
  assert.equal(world.watchers.size, 0, 'the world is still watched');
  assert.equal(world.frames.size, 0, 'a picture is still waited for');
  feed = undefined;
});

describe('what is said to the constructor', () => {
  test('bad words are refused with what would be good ones', () => {
    const cases = [
      ['nonsense', {}, /url: expected ws:.* and a host, not nonsense/],
      ['ftp://feed.example/', {}, /url: expected ws:\/\/, wss:\/\/, http:\/\/ or https:\/\/ and a host, not ftp:/],
      ['localhost:8080', {}, /url: expected ws:.*, not localhost:8080/],
      ['ws://feed.example/', { pingInterval: 0 }, /pingInterval: expected a whole number from 1 to/],
      ['ws://feed.example/', { backoffMost: 1.5 }, /backoffMost: expected a whole number/],
      ['ws://feed.example/', { tokens: 'x' }, /tokens: expected one of token, WebSocket/],
      ['ws://feed.example/', { WebSocket: 'ws' }, /WebSocket: none here; expected one as an option/],
    ];
    for (const [url, options, message] of cases) {
      assert.throws(() => open(options, url), { name: 'TypeError', message }, `${url} ${Object.keys(options)}`);
    }
  });

  test('an address of a page is that of its socket, and says where the client belongs', async () => {
    for (const [given, expected] of [
      ['https://feed.example/path#part', 'wss://feed.example/path?affinity=me'],
      ['http://feed.example', 'ws://feed.example/?affinity=me'],
      ['wss://feed.example/?affinity=you', 'wss://feed.example/?affinity=you'],
    ]) {
      open({}, given);
      await settled();
      assert.equal(world.socket.url, expected);
      feed.close();
    }
  });

  test('an affinity is made up', async () => {
    world.chances = [0.123];
    open({ affinity: undefined });
    await settled();
    assert.match(world.socket.url, /\?affinity=[a-z0-9]{5,32}$/);
  });
});

describe('a connection', () => {
  test('begins with the properties and all that is wanted, in one request', async () => {
    open();
    const log = logOf(feed);
    feed.on(A, () => {});
    feed.on(D, () => {});
    await settled();
    assert.deepEqual(world.socket.sent, []);
    world.socket.open();
    assert.deepEqual(world.socket.sent, [
      { method: 'SET_PROPERTY', params: ['offsets', true], id: 1 },
      { method: 'SET_PROPERTY', params: ['snapshot', true], id: 2 },
      { method: 'SUBSCRIBE', params: [A, D], id: 3 },
    ]);
    assert.equal(feed.state, 'connecting');
    world.socket.answer();
    assert.equal(feed.state, 'open');
    assert.deepEqual(log, [['state', { state: 'open', previous: 'connecting' }]]);
  });

  test('handlers get the data and the envelope', async () => {
    open();
    const heard = [];
    feed.on(A, (data, message) => heard.push([data, message]));
    const socket = await world.connect();
    socket.publish(A, trade(1), 'x-1');
    assert.deepEqual(heard, [[trade(1), { stream: A, data: trade(1), offset: 'x-1' }]]);
  });

  test('two handlers share one subscription, which ends with the last of them', async () => {
    open();
    const heard = [];
    const stop = feed.on(A, ({ t }) => heard.push(['one', t]));
    const other = feed.on(A, ({ t }) => heard.push(['other', t]));
    const socket = await world.connect();
    assert.equal(socket.asked('SUBSCRIBE').length, 1);
    socket.publish(A, trade(1));
    stop();
    stop();
    socket.publish(A, trade(2));
    await settled();
    assert.deepEqual(socket.asked('UNSUBSCRIBE'), []);
    other();
    socket.publish(A, trade(3));
    await settled();
    assert.deepEqual(socket.asked('UNSUBSCRIBE').map(({ params }) => params), [[A]]);
    assert.deepEqual(heard, [['one', 1], ['other', 1], ['other', 2]]);
  });

  test('what nobody wants any more when it opens is not asked for', async () => {
    open();
    const stop = feed.on(A, () => {});
    await settled();
    stop();
    const socket = await world.connect();
    assert.deepEqual(socket.asked('SUBSCRIBE'), []);
    assert.deepEqual(socket.asked('UNSUBSCRIBE'), []);
  });

  test('who stops before the reply hears nothing, and the stream is left', async () => {
    open();
    await world.connect();
    const heard = [];
    const stop = feed.on(A, (data) => heard.push(data));
    await settled();
    const [{ id }] = world.socket.asked('SUBSCRIBE');
    stop();
    await settled();
    world.socket.reply(id);
    world.socket.publish(A, trade(1), 'x-1');
    assert.deepEqual(heard, []);
    assert.equal(world.socket.asked('UNSUBSCRIBE').length, 1);
  });

  test('a stream that is wanted again is subscribed once the end of the earlier one is known', async () => {
    open();
    const heard = [];
    const stop = feed.on(A, () => heard.push('before'));
    const socket = await world.connect();
    stop();
    feed.on(A, ({ t }) => heard.push(t));
    await settled();
    assert.equal(socket.asked('UNSUBSCRIBE').length, 1);
    assert.equal(socket.asked('SUBSCRIBE').length, 1);
    socket.publish(A, trade(1), 'x-1'); // of the earlier one
    socket.reply(socket.asked('UNSUBSCRIBE')[0].id);
    await settled();
    assert.equal(socket.asked('SUBSCRIBE').length, 2);
    socket.publish(A, trade(2), 'x-2'); // before the reply
    socket.reply(socket.asked('SUBSCRIBE')[1].id);
    socket.publish(A, trade(3), 'x-3');
    assert.deepEqual(heard, [3]);
  });

  test('a handler that throws, or rejects, is in nobody\'s way', async () => {
    open();
    const errors = [];
    const heard = [];
    feed.on('error', (error) => errors.push([error.kind, error.final, error.cause.message]));
    feed.on(A, () => { throw new Error('one'); });
    feed.on(A, async () => { throw new Error('two'); });
    feed.on(A, ({ t }) => heard.push(t));
    feed.on('message', () => { throw new Error('three'); });
    const socket = await world.connect();
    socket.publish(A, trade(1));
    socket.publish(A, trade(2));
    await settled();
    assert.deepEqual(heard, [1, 2]);
    assert.deepEqual(errors.map(([, , message]) => message).sort(), ['one', 'one', 'three', 'three', 'two', 'two']);
    assert.ok(errors.every(([kind, final]) => kind === 'handler' && !final));
  });

  test('a listener of errors that throws ends nothing, and what nobody listens to is said on the console', async (t) => {
    const said = t.mock.method(console, 'error', () => {});
    open();
    feed.on(A, () => { throw new Error('first'); });
    const socket = await world.connect();
    socket.publish(A, trade(1));
    const stop = feed.on('error', () => { throw new Error('second'); });
    socket.publish(A, trade(2));
    stop();
    socket.publish(A, trade(3));
    assert.deepEqual(said.mock.calls.map((call) => call.arguments[0].message), ['first', 'second', 'first']);
  });

  test('a final error that nobody listens to is said on the console, and no other', async (t) => {
    const said = t.mock.method(console, 'error', () => {});
    open();
    feed.on('trades@TATA_INR', () => {});
    const refused = async () => {
      await settled();
      world.socket.open();
      world.socket.refuse(world.socket.asked('SUBSCRIBE')[0].id, 2, 'the kind is none of trade, depth');
    };
    await refused();
    const texts = () => said.mock.calls.map(({ arguments: [error] }) => [error.kind, error.stream, error.message]);
    assert.deepEqual(texts(), [['refused', 'trades@TATA_INR', 'the kind is none of trade, depth']]);
    world.socket.drop(1011); // which is tried again
    const stop = feed.on('error', () => {});
    feed.on('orders@TATA_INR', () => {});
    await world.pass(world.next);
    await refused();
    assert.equal(said.mock.callCount(), 1);
    stop();
    world.socket.drop(1002, 'why');
    assert.deepEqual(texts().slice(1), [['closed', undefined, 'the connection was closed with 1002: why']]);
  });

  test('a handler may end itself, its neighbour, and the feed', async () => {
    open();
    const heard = [];
    const stop = feed.on(A, () => { heard.push('one'); stop(); other(); });
    const other = feed.on(A, () => heard.push('other'));
    feed.on(A, () => { heard.push('third'); feed.close(); });
    feed.on(A, () => heard.push('fourth'));
    const socket = await world.connect();
    socket.publish(A, trade(1));
    socket.publish(A, trade(2));
    assert.deepEqual(heard, ['one', 'third']);
    assert.equal(socket.closedWith, 1000);
  });

  test('a bad name, or what is no function, is refused', () => {
    open();
    assert.throws(() => feed.on('trades', () => {}), /expected a stream, as trade@TATA_INR, or one of state,/);
    assert.throws(() => feed.on(A), /trade@TATA_INR: expected a function, not undefined/);
    assert.throws(() => feed.on(A, () => {}, { rewind: 1001 }), /rewind: expected a whole number from 1 to 1000, not 1001/);
    assert.throws(() => feed.batch(A), /trade@TATA_INR: expected a function/);
    assert.throws(() => feed.stream(A, { limit: 0 }), /limit: expected a whole number/);
  });

  test('closing is final', async () => {
    open();
    const log = logOf(feed);
    const heard = [];
    feed.on(A, (data) => heard.push(data));
    const socket = await world.connect();
    log.length = 0;
    const { onmessage, onclose } = socket;
    feed.close();
    feed.close();
    onmessage({ data: JSON.stringify({ stream: A, data: trade(1) }) });
    onclose({ code: 1000 });
    world.wake();
    assert.deepEqual(log, [['state', { state: 'closed', previous: 'open' }]]);
    assert.deepEqual(heard, []);
    assert.equal(feed.on(A, () => heard.push('late'))(), undefined);
    assert.equal(world.sockets.length, 1);
    await assert.rejects(feed.ready(), { kind: 'not-open' });
  });

  test('closing while it connects, and while it waits', async () => {
    open();
    await settled();
    feed.close();
    assert.equal(world.socket.closedWith, 1000);
    open();
    await settled();
    world.socket.drop();
    assert.equal(feed.state, 'waiting');
    feed.close();
    assert.equal(world.timers, 0);
  });

  test('ready waits for a connection', async () => {
    open();
    const ready = feed.ready();
    await world.connect();
    await ready;
    await feed.ready();
  });
});

describe('reconnecting', () => {
  test('with full jitter, from bounds that double, and again from the first once a connection was good', async () => {
    open();
    const delays = [];
    feed.on('reconnecting', ({ delay, attempt, hinted }) => delays.push([attempt, delay, hinted]));
    world.chances = [0.99, 0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5];
    for (let attempt = 1; attempt <= 8; attempt += 1) {
      await settled();
      world.socket.drop();
      await world.pass(world.next);
    }
    assert.deepEqual(delays.map(([, delay]) => delay), [495, 0, 1000, 2000, 4000, 8000, 15000, 15000]);
    assert.deepEqual(delays.map(([attempt]) => attempt), [1, 2, 3, 4, 5, 6, 7, 8]);
    delays.length = 0;
    await world.connect();
    await world.pass(9_999);
    world.socket.drop();
    await world.pass(world.next);
    await world.connect();
    await world.pass(10_000);
    world.socket.drop();
    assert.deepEqual(delays, [[9, 15000, false], [1, 250, false]]);
  });

  test('what is told, in order', async () => {
    open();
    const log = logOf(feed);
    await world.connect();
    world.socket.drop(1011, 'internal error');
    await world.pass(250);
    await world.connect();
    assert.deepEqual(log, [
      ['state', { state: 'open', previous: 'connecting' }],
      ['state', { state: 'waiting', previous: 'open' }],
      ['error', { kind: 'closed', final: false, code: 1011 }],
      ['reconnecting', { delay: 250, attempt: 1, hinted: false }],
      ['state', { state: 'connecting', previous: 'waiting' }],
      ['state', { state: 'open', previous: 'connecting' }],
    ]);
  });

  test('the hint of a server is taken, once, and nothing makes it shorter', async () => {
    open();
    const log = logOf(feed, { events: ['reconnecting'] });
    await world.connect();
    world.socket.event('serverShutdown', { E: START, reconnectAfter: 3210 });
    world.socket.drop(1012);
    world.wake();
    assert.equal(feed.state, 'waiting');
    assert.equal(world.next, 3210);
    await world.pass(3210);
    world.socket.drop();
    assert.deepEqual(log.map(([, { delay, hinted }]) => [delay, hinted]), [[3210, true], [500, false]]);
  });

  test('at once when the network is there again', async () => {
    open();
    await settled();
    world.socket.drop();
    world.wake();
    assert.equal(feed.state, 'connecting');
    await settled();
    assert.equal(world.sockets.length, 2);
    world.wake(); // an attempt is under way already
    await settled();
    assert.equal(world.sockets.length, 2);
  });

  test('one that was never open is told with its address, and with the reason where there is one', async () => {
    const texts = [];
    open({}, 'ws://feed.example/path?key=secret');
    feed.on('error', ({ kind, code, message }) => texts.push([kind, code, message]));
    await settled();
    world.socket.drop();
    await world.pass(world.next);
    await settled();
    world.socket.onerror({ error: new Error('connect ECONNREFUSED 127.0.0.1:8080') });
    world.socket.drop();
    await world.pass(world.next);
    await world.connect();
    world.socket.drop();
    assert.deepEqual(texts, [
      ['closed', 1006, 'no connection to ws://feed.example/path: out of reach, or refused (address, origin, token)'],
      ['closed', 1006, 'no connection to ws://feed.example/path: connect ECONNREFUSED 127.0.0.1:8080'],
      ['closed', 1006, 'the connection was closed with 1006'],
    ]);
  });

  test('close codes are final, or not', async () => {
    for (const [code, final] of [
      [1000, false], [1001, false], [1002, true], [1003, true], [1006, false], [1007, true], [1009, true], [1011, false],
      [1012, false], [4008, false], [4009, false], [4029, false], [4401, true],
    ]) {
      open();
      const log = logOf(feed, { events: ['error'] });
      await world.connect();
      world.socket.drop(code, 'why');
      assert.deepEqual(log, [['error', { kind: 'closed', final, code }]]);
      assert.equal(feed.state, final ? 'closed' : 'waiting');
      if (final) assert.match(feed.error.message, new RegExp(`closed with ${code}: why`));
      feed.close();
      assert.equal(world.timers, 0);
    }
  });

  test('who asked too much comes back later', async () => {
    open();
    await world.connect();
    world.socket.drop(4029);
    assert.equal(world.next, 4000); // half of 500 ms doubled four times
  });

  test('a final error rejects who waits, and is kept', async () => {
    open();
    const ready = feed.ready();
    await settled();
    world.socket.drop(1002);
    await assert.rejects(ready, (error) => error instanceof FeedError && error.final && error === feed.error);
    await assert.rejects(feed.ready(), { code: 1002 });
  });

  test('an attempt that takes too long is given up', async () => {
    open();
    const log = logOf(feed, { events: ['error'] });
    await settled();
    const first = world.socket;
    await world.pass(15_000);
    assert.deepEqual(log, [['error', { kind: 'timeout', final: false }]]);
    assert.equal(first.closedWith, 1000);
    first.onerror(new Error('late')); // as of the package ws
    await world.pass(world.next);
    await settled();
    world.socket.open(); // a server that accepts, and says nothing
    await world.pass(15_000);
    assert.equal(log.length, 2);
  });

  test('what an earlier socket says is not heard', async () => {
    open();
    const heard = [];
    feed.on(A, ({ t }) => heard.push(t));
    const first = await world.connect();
    first.drop();
    await world.pass(world.next);
    await world.connect({ recovered: { [A]: true } });
    first.publish(A, trade(9), 'x-9');
    first.drop(1002);
    world.socket.publish(A, trade(1), 'x-1');
    assert.equal(first.onmessage, null);
    assert.equal(feed.state, 'open');
    assert.deepEqual(heard, [1]);
  });
});

describe('the address and the token', () => {
  test('functions are asked before each attempt', async () => {
    let count = 0;
    open({ token: async () => `token${count}` }, () => `ws://host${(count += 1)}.example/`);
    await settled();
    assert.deepEqual([world.socket.url, world.socket.protocols], [
      'ws://host1.example/?affinity=me',
      ['marketfeed', 'bearer.token1'],
    ]);
    world.socket.drop();
    await world.pass(world.next);
    assert.deepEqual([world.socket.url, world.socket.protocols], [
      'ws://host2.example/?affinity=me',
      ['marketfeed', 'bearer.token2'],
    ]);
  });

  test('without a token there is no subprotocol', async () => {
    open({ token: () => undefined });
    await settled();
    assert.equal(world.socket.protocols, undefined);
  });

  test('a function that fails is tried again, unless it says that it is final', async () => {
    for (const kind of ['url', 'token']) {
      for (const final of [false, true]) {
        const fails = () => Promise.reject(Object.assign(new Error('nobody is logged in'), { final }));
        if (kind === 'url') open({}, fails);
        else open({ token: fails });
        const log = logOf(feed, { events: ['error', 'state'] });
        await settled();
        assert.deepEqual(log, [
          ['state', { state: final ? 'closed' : 'waiting', previous: 'connecting' }],
          ['error', { kind, final }],
        ]);
        feed.close();
      }
    }
  });

  test('an address that a function gives and that is none may be better next time; what a socket refuses is final', async () => {
    open({}, () => 'nonsense');
    await settled();
    assert.equal(feed.state, 'waiting');
    feed.close();
    world.broken = new SyntaxError('bad subprotocol');
    open({ token: 'a b' });
    await settled();
    assert.deepEqual([feed.state, feed.error.kind], ['closed', 'token']);
  });

  test('a function that never answers is given up', async () => {
    open({ token: () => new Promise(() => {}) });
    await world.pass(15_000);
    assert.equal(feed.state, 'waiting');
  });

  test('a token that is asked for is no reason to be final', async () => {
    open({ token: () => 'old' });
    await settled();
    world.socket.drop(4401);
    assert.equal(feed.state, 'waiting');
  });

  test('a token that expires is renewed on the open connection', async () => {
    let token = 'one';
    open({ token: () => token });
    const log = logOf(feed, { events: ['expiring', 'error'] });
    const socket = await world.connect();
    token = 'two';
    socket.event('expiring', { E: START, expiresAt: START + 60_000 });
    await settled();
    assert.deepEqual(socket.asked('AUTH').map(({ params }) => params), [['two']]);
    socket.answer();
    await settled();
    assert.deepEqual(log, [['expiring', { at: START, expiresAt: START + 60_000 }]]);
  });

  test('one that cannot be renewed is an error, and the connection goes on', async () => {
    open({ token: () => 'one' });
    const log = logOf(feed, { events: ['error'] });
    const socket = await world.connect();
    socket.event('expiring', { E: START, expiresAt: START + 60_000 });
    await settled();
    socket.refuse(socket.asked('AUTH')[0].id, 6);
    await settled();
    assert.deepEqual(log, [['error', { kind: 'token', final: false, code: 6 }]]);
    assert.equal(feed.state, 'open');
  });

  test('streams that a new token does not cover end with an error, and come back with a better one', async () => {
    open({ token: () => 'one' });
    const log = logOf(feed, { events: ['error'] });
    feed.on(A, () => {});
    feed.on(B, () => {});
    const socket = await world.connect();
    socket.event('expiring', { E: START, expiresAt: START + 60_000 });
    await settled();
    socket.answer();
    socket.event('error', { code: 5, msg: `not permitted: the token does not cover ${B}` });
    const [{ id }] = socket.asked('LIST_SUBSCRIPTIONS');
    socket.event('reply', { id, result: [A] });
    assert.deepEqual(log, [['error', { kind: 'refused', final: false, code: 5, stream: B }]]);
    await settled();
    socket.answered = socket.sent.length;
    socket.event('expiring', { E: START, expiresAt: START + 60_000 });
    await settled();
    socket.answer();
    await settled();
    assert.deepEqual(socket.asked('SUBSCRIBE').at(-1).params, [B]);
  });
});

describe('signs of life', () => {
  test('a quiet connection is asked, and one that does not answer is dead within a bounded time', async () => {
    open();
    const log = logOf(feed, { events: ['error'] });
    const socket = await world.connect();
    await world.pass(14_999);
    assert.equal(socket.asked('PING').length, 0);
    await world.pass(1);
    assert.equal(socket.asked('PING').length, 1);
    socket.answer();
    await world.pass(25_000);
    assert.equal(socket.asked('PING').length, 2);
    assert.equal(feed.state, 'open');
    await world.pass(100);
    assert.deepEqual(log, [['error', { kind: 'dead', final: false }]]);
    assert.equal(feed.state, 'waiting');
    assert.equal(socket.closedWith, 1000);
  });

  test('a busy connection is not asked', async () => {
    open();
    feed.on(A, () => {});
    const socket = await world.connect();
    for (let second = 0; second < 100; second += 1) {
      socket.publish(A, trade(second));
      await world.pass(1000);
    }
    assert.equal(socket.asked('PING').length, 0);
    await world.pass(15_000);
    assert.equal(socket.asked('PING').length, 1);
  });

  test('one that brings publications and no answers is dead as well', async () => {
    open();
    feed.on(A, () => {});
    const socket = await world.connect();
    feed.history(A).catch(() => {});
    for (let second = 0; second < 80 && feed.state === 'open'; second += 1) {
      socket.publish(A, trade(second));
      await world.pass(1000);
    }
    assert.equal(feed.state === 'open', false);
  });

  test('when somebody looks again it is asked at once', async () => {
    open();
    const socket = await world.connect();
    await world.pass(1000);
    world.wake();
    world.wake();
    assert.equal(socket.asked('PING').length, 1);
    await world.pass(10_100);
    assert.equal(feed.state, 'waiting');
  });

  test('a clock that is set back hides no dead connection', async () => {
    open();
    await world.connect();
    await world.pass(5000);
    world.time -= 3_600_000;
    const before = world.time;
    while (feed.state === 'open') await world.pass(world.next);
    assert.ok(world.time - before <= 3_600_000 + 45_000);
  });
});

describe('batches', () => {
  test('one call for each picture, of all that has come', async () => {
    open();
    const batches = [];
    feed.batch(A, (batch) => batches.push(batch.map(({ t }) => t)));
    const socket = await world.connect();
    for (const t of [1, 2, 3]) socket.publish(A, trade(t));
    assert.deepEqual(batches, []);
    world.draw();
    world.draw();
    socket.publish(A, trade(4));
    world.draw();
    assert.deepEqual(batches, [[1, 2, 3], [4]]);
  });

  test('nothing comes behind its end, and a page that is not drawn keeps no more than 10,000', async () => {
    open();
    const batches = [];
    const stop = feed.batch(A, (batch) => { batches.push(batch.length); throw new Error('no'); });
    feed.on('error', () => batches.push('error'));
    const socket = await world.connect();
    for (let t = 0; t < 25_000; t += 1) socket.publish(A, trade(t));
    assert.deepEqual(batches, [10_000, 'error', 10_000, 'error']);
    stop();
    world.draw();
    assert.equal(batches.length, 4);
  });
});

describe('for await', () => {
  test('it begins with the loop, and leaving it ends the subscription', async () => {
    open();
    const stream = feed.stream(A);
    const socket = await world.connect();
    assert.deepEqual(socket.asked('SUBSCRIBE'), []);
    const heard = [];
    const loop = (async () => {
      for await (const { t } of stream) {
        heard.push(t);
        if (t === 3) break;
      }
    })();
    await settled();
    socket.answer();
    for (const t of [1, 2, 3, 4]) socket.publish(A, trade(t));
    await loop;
    await settled();
    assert.deepEqual(heard, [1, 2, 3]);
    assert.equal(socket.asked('UNSUBSCRIBE').length, 1);
  });

  test('a loop that is too slow loses the oldest, and it is told once each time', async () => {
    open();
    const log = logOf(feed, { events: ['overflow'] });
    const stream = feed.stream(A, { limit: 3 });
    const first = stream.next();
    const socket = await world.connect();
    for (const t of [1, 2, 3, 4, 5, 6]) socket.publish(A, trade(t));
    assert.equal((await first).value.t, 1);
    assert.deepEqual(log, [['overflow', { stream: A, limit: 3 }]]);
    assert.equal(stream.dropped, 2);
    assert.equal((await stream.next()).value.t, 4);
    for (const t of [7, 8]) socket.publish(A, trade(t));
    assert.equal(log.length, 2);
    assert.equal((await stream.next()).value.t, 6);
    await stream.return();
    assert.deepEqual(await stream.next(), { value: undefined, done: true });
  });

  test('closing ends a loop, behind what waits for it', async () => {
    open();
    const stream = feed.stream(A);
    const first = stream.next();
    const socket = await world.connect();
    for (const t of [1, 2]) socket.publish(A, trade(t));
    feed.close();
    assert.equal((await first).value.t, 1);
    assert.equal((await stream.next()).value.t, 2);
    assert.equal((await stream.next()).done, true);
    assert.equal((await feed.stream(A).next()).done, true);
  });

  test('a final error is thrown in the loop', async () => {
    open();
    const stream = feed.stream(A);
    const first = stream.next();
    await world.connect();
    world.socket.drop(1002);
    await assert.rejects(first, { code: 1002, final: true });
    assert.equal((await stream.next()).done, true);
    await assert.rejects(feed.stream(A).next(), { code: 1002 });
  });
});

describe('history', () => {
  test('it is asked for and answered', async () => {
    open();
    const socket = await world.connect();
    const history = feed.history(A, { limit: 2 });
    const request = socket.sent.at(-1);
    assert.deepEqual(request, { method: 'HISTORY', params: [A], limit: 2, id: request.id });
    socket.event('reply', { id: request.id, result: [{ offset: 'x-1', data: trade(1) }] });
    assert.deepEqual(await history, [{ offset: 'x-1', data: trade(1) }]);
  });

  test('nothing is queued: without a connection, or when it is lost, it fails at once', async () => {
    open();
    await assert.rejects(feed.history(A), { kind: 'not-open', final: false });
    const socket = await world.connect();
    const history = feed.history(A);
    socket.drop();
    await assert.rejects(history, { kind: 'not-open', final: false });
    await assert.rejects(feed.history(A, { limit: 0 }), /limit: expected/);
  });

  test('what the server refuses is the error', async () => {
    open();
    const socket = await world.connect();
    const bad = feed.history('trades@X');
    socket.refuse(socket.sent.at(-1).id, 2, 'bad stream name');
    await assert.rejects(bad, { kind: 'refused', code: 2, final: true, message: 'bad stream name' });
    const busy = feed.history(A);
    socket.refuse(socket.sent.at(-1).id, 7);
    await assert.rejects(busy, { code: 7, final: false });
  });
});
