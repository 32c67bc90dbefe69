// What the Charting Library does with a datafeed, by its documented API: it fills a chart, follows it, asks anew when it
// is told to. A line of JSON for each thing that happens; a line on stdin is the name of what to do next.
//
//   node library.mjs DATAFEED CLIENT URL MARKET RESOLUTION

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const [datafeedAt, clientAt, url, market, resolution] = process.argv.slice(2);
const { Datafeed } = await import(datafeedAt);
const { MarketFeed } = await import(`${clientAt}/src/index.js`);
const { MarketRest } = await import(`${clientAt}/src/rest.js`);
const { WebSocket } = createRequire(`${clientAt}/package.json`)('ws');

const COUNT = 300;
const say = (...words) => console.log(JSON.stringify(words));
const rest = new MarketRest(url);
const feed = new MarketFeed(url, { WebSocket, backoffBase: 50, backoffMost: 200 });
const datafeed = new Datafeed(feed, rest, () => fill());
const bars = new Map(); // the chart, by time in ms
let symbol;
let listeners = 0;
let isFilling = false;

for (const name of ['state', 'recovered', 'gap']) feed.on(name, (event) => say(name, event));
feed.on('error', ({ message, kind }) => say('error', kind, message));

/** A method answers by one of its callbacks, once, and never within the call. */
function asked(method, ...words) {
  return new Promise((resolve, reject) => {
    let isCalling = true;
    const once = (settle) => (...answer) => {
      if (isCalling) reject(new Error(`${method} answers within the call`));
      settle(...(answer.length > 1 ? [answer] : answer));
    };
    datafeed[method](...words, once(resolve), once((why) => reject(new Error(`${method}: ${why}`))));
    isCalling = false;
  });
}

/** Older bars: as many as are asked for, each before `to`, oldest first. */
async function page(to, firstDataRequest) {
  const params = { from: to - COUNT * 60, to, countBack: COUNT, firstDataRequest };
  const [some, { noData }] = await asked('getBars', symbol, resolution, params);
  assert.equal(noData, some.length === 0);
  assert.deepEqual(some.map(({ time }) => time), some.map(({ time }) => time).sort((one, other) => one - other));
  for (const bar of some) {
    assert(bar.time < to * 1000 && !(bars.has(bar.time) && !firstDataRequest));
    assert(bar.low <= Math.min(bar.open, bar.close) && Math.max(bar.open, bar.close) <= bar.high && bar.volume >= 0);
    bars.set(bar.time, bar);
  }
  return some;
}

/** The chart from its beginning. */
async function fill() {
  if (isFilling) return;
  isFilling = true;
  if (listeners) datafeed.unsubscribeBars(`listener ${listeners}`);
  bars.clear();
  let some;
  do {
    some = await page(Math.floor(Date.now() / 1000) + 60, true).catch((error) => say('retry', error.message));
  } while (!some && await new Promise((resolve) => setTimeout(resolve, 100, true)));
  listeners += 1;
  const mine = listeners;
  datafeed.subscribeBars(symbol, resolution, (bar) => {
    assert.equal(mine, listeners, 'a bar for nobody');
    const last = Math.max(...bars.keys());
    assert(bar.time >= last, `time violation: ${bar.time} after ${last}`);
    bars.set(bar.time, bar);
    say('bar', bar);
  }, `listener ${mine}`, () => say('reset'));
  isFilling = false;
  say('filled', bars.size);
}

/** Whether it is the same bar, but for trades that came late. */
const isAmended = (bar, now) => now.time === bar.time && now.open === bar.open && now.close === bar.close
  && now.high >= bar.high && now.low <= bar.low && now.volume >= bar.volume;

const todo = {
  /** All that there is of the past, page by page. */
  async back() {
    const pages = [];
    for (let some; !some || some.length;) {
      some = await page(Math.min(...bars.keys()) / 1000, false);
      pages.push(some.length);
    }
    say('back', pages);
  },

  /** Once the chart is the daemon's: each of its last bars whose time is over, and none is left out. Trades that come
   *  too late for a bar change its extremes and its volume afterwards, which is not published. */
  async compare() {
    const interval = { '1S': '1s', 1: '1m' }[resolution];
    for (let isSame = false; !isSame;) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      if (isFilling || bars.size < 2) continue;
      const mine = [...bars.values()].sort((one, other) => one.time - other.time).slice(-200, -1);
      const range = { startTime: mine[0].time, endTime: mine.at(-1).time };
      const theirs = await rest.klines(market, interval, range).catch(() => []);
      const shown = theirs.map(({ openTime: time, open, high, low, close, volume }) => (
        { time, open: Number(open), high: Number(high), low: Number(low), close: Number(close), volume: Number(volume) }));
      isSame = mine.length === shown.length && mine.every((bar, at) => isAmended(bar, shown[at]));
    }
    say('same');
  },

  end() {
    datafeed.unsubscribeBars(`listener ${listeners}`);
    feed.close();
    lines.close();
  },
};

const lines = createInterface({ input: process.stdin });
say('ready', await asked('onReady'));
say('time', Math.abs(await asked('getServerTime') - Date.now() / 1000) < 600);
say('found', (await asked('searchSymbols', market.slice(0, 3).toLowerCase(), '', '')).map((each) => each.ticker));
symbol = await asked('resolveSymbol', market);
say('symbol', symbol);
await asked('resolveSymbol', 'NO_SUCH').catch(({ message }) => say('unknown', message));
await fill();
for await (const line of lines) await todo[line]();
