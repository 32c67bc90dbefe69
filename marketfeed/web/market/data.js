// All that the page has from the daemon: one connection for what happens, and questions for what was.

import { MarketFeed } from './client/book.js';
import { MarketRest } from './client/rest.js';

const CUT = 4000; // ms for which a cut lasts
const AGAIN = [1000, 2000, 4000, 8000, 16_000]; // ms
const FEW = 60;

const here = new URL('/', location.href);
let socket = null; // the one under the feed
let mended = Promise.resolve(); // when the cable is in again

/** A WebSocket that can be found, to be pulled out like a cable. */
class Cable extends WebSocket {
  constructor(...address) {
    super(...address);
    socket = this;
  }
}

/** The page's only connection. After a loss it tries again at least every two seconds, for somebody is looking. */
export const feed = new MarketFeed(() => mended.then(() => here.href), {
  WebSocket: Cable,
  backoffBase: 300,
  backoffMost: 2000,
});

export const rest = new MarketRest(here);

/** Close the socket under the feed, which is told nothing of it, and leave the cable out for a while. */
export function cut() {
  mended = new Promise((resolve) => setTimeout(resolve, CUT));
  socket?.close();
}

/** What the daemon answers at `/api/v3/` and the client has no method for. */
async function ask(path) {
  const answer = await fetch(new URL(`api/v3/${path}`, here));
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

/** The markets, each with its name, what is traded and paid, and the last 24 hours, where anybody knows them. */
export async function markets() {
  const [{ symbols }, days] = await Promise.all([ask('exchangeInfo'), ask('ticker/24hr').catch(() => [])]);
  const known = new Map(days.map((each) => [each.symbol, each]));
  return symbols.map(({ symbol, baseAsset, quoteAsset }) => {
    const { openPrice: o, highPrice: h, lowPrice: l, lastPrice: c, volume: v, quoteVolume: q } = known.get(symbol) ?? {};
    return { name: symbol, base: baseAsset, quote: quoteAsset, day: c === undefined ? null : { s: symbol, o, h, l, c, v, q } };
  });
}

/** Try until it works, for as long as `isWanted` says so; a daemon that is away comes back. */
export async function insist(attempt, isWanted = () => true) {
  for (let pause = 250; isWanted(); pause = Math.min(pause * 2, 2000)) {
    try {
      return await attempt();
    } catch (error) {
      if (error?.final) throw error;
    }
    await sleep(pause);
  }
  return null;
}

/**
 * Ask for the last candles of a market, and give them to `take`. While they are few it is asked again, some times: a
 * daemon that has just begun has them a moment later.
 */
export async function past(market, interval, limit, take, isWanted = () => true) {
  for (const pause of [...AGAIN, 0]) {
    const found = await insist(() => rest.klines(market, interval, { limit }), isWanted).catch(() => []);
    if (!found || !isWanted()) return;
    take(found);
    if (found.length >= FEW) return;
    await sleep(pause);
  }
}

function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
