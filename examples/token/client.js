// A client that shows who it is: it asks an issuer for a token before each attempt, and whenever one is nearly over.
//
//   node client.js [ADDRESS] [ISSUER]        Ctrl-C ends it
//
// 1. The connection stays when a token is over: the next one has taken its place by then.
// 2. An issuer that is away for a while is asked again. One that refuses is not: somebody has to log in.

import { MarketFeed } from '../../clients/js/src/index.js'; // 'marketfeed', where it is installed

const [address = 'ws://localhost:8080', issuer = 'http://localhost:8070/token'] = process.argv.slice(2);
const SESSION = 'a-session-of-alice';
const UNAUTHORIZED = 401;

async function token() {
  const answer = await fetch(issuer, { method: 'POST', headers: { Authorization: `Bearer ${SESSION}` } });
  if (answer.ok) return (await answer.json()).token;
  const final = answer.status === UNAUTHORIZED;
  throw Object.assign(new Error(final ? 'the session is over: log in again' : `the issuer says ${answer.status}`), { final });
}

const feed = new MarketFeed(address, { token });
feed.on('trade@TATA_INR', (trade) => console.log('TATA_INR', trade.t, trade.p));
feed.on('error', ({ message }) => console.log('error', message));
feed.on('gap', ({ reason }) => console.log('gap', reason));
feed.on('recovered', ({ recovered, count }) => { if (recovered) console.log('recovered', count); });
process.on('SIGINT', () => {
  feed.close();
  console.log('stopped');
});
