// "Show me the code": for each panel the lines with which a page of one's own gets the same.

import { $, button, element } from './dom.js';

const WORD = /(\/\/.*)|('[^']*'|`[^`]*`)|\b(import|from|const|for|of|await|new|async|if|return)\b/g;
const KINDS = ['comment', 'string', 'keyword'];

const IMPORT = "import { MarketFeed } from 'marketfeed';\n";
const FEED = (host) => `const feed = new MarketFeed('${host.replace('http', 'ws')}');\n`;
const START = (host) => `${IMPORT}\n${FEED(host)}`;

/** By panel: the code for a market of a daemon. */
export const SNIPPETS = {
  markets: (market, host) => `// Without a build step, the page says where the client is:
// <script type="importmap">{ "imports": {
//   "marketfeed": "/clients/js/src/index.js",
//   "marketfeed/rest": "/clients/js/src/rest.js" } }</script>
${START(host)}
// The last 24 hours of every market, once a second
feed.on('!miniTicker@arr', (days) => {
  for (const { s, o, c } of days) {
    console.log(s, c, ((c / o - 1) * 100).toFixed(2) + ' %');
  }
});`,
  chart: (market, host) => `${IMPORT}import { MarketRest } from 'marketfeed/rest';

${FEED(host)}const rest = new MarketRest('${host}');
const stream = 'kline_1m@${market}';
const candles = new Map(); // by the time of opening
const since = new Set(); // what came since the question

// Listen first: the stream is newer than the answer
feed.on(stream, ({ k }) => {
  since.add(k.t);
  candles.set(k.t, [k.o, k.h, k.l, k.c]);
  console.log(candles.size, k.c);
});
const load = async () => {
  since.clear();
  const past = await rest.klines('${market}', '1m', { limit: 500 });
  for (const { openTime, open, high, low, close } of past) {
    if (!since.has(openTime)) candles.set(openTime, [open, high, low, close]);
  }
};
feed.on('state', ({ state }) => state === 'open' && load());
feed.on('gap', ({ streams, to }) => {
  if (to !== null && streams.includes(stream)) load();
});`,
  ladder: (market, host) => `${START(host)}
// Twenty levels a side, ten times a second at most
feed.batch('depth20@${market}@100ms', (books) => {
  const { bids, asks } = books.at(-1);
  console.log('bid', ...bids[0], 'ask', ...asks[0]);
});`,
  tape: (market, host) => `${START(host)}
// The last 60 trades, then each as it happens:
// once per animation frame
feed.batch('trade@${market}', (trades) => {
  for (const { p, q, m } of trades) {
    console.log(m ? 'sold' : 'bought', q, 'at', p);
  }
}, { rewind: 60 });`,
  connection: (market, host) => `${START(host)}
// It reconnects by itself, and says what became of it
feed.on('state', ({ state }) => console.log(state));
feed.on('gap', ({ streams, reason }) => {
  console.log('gap', reason, ...streams);
});
feed.on('recovered', ({ stream, recovered, count }) => {
  console.log(stream, recovered ? 'nothing missed' : 'missed', count);
});
feed.on('trade@${market}', ({ p }) => console.log(p));`,
};

/** Give each panel its button. Call what comes back when another market is shown. */
export function codePanels() {
  const shown = [];
  let market = '';
  for (const [panel, write] of Object.entries(SNIPPETS)) {
    const place = $(panel);
    const area = element('div', 'code');
    area.id = `${panel}-code`;
    area.hidden = true;
    const pre = element('pre');
    pre.tabIndex = 0;
    pre.setAttribute('role', 'region');
    pre.setAttribute('aria-label', `Code: ${$(`${panel}-name`).textContent}`);
    const copy = button('Copy', async () => {
      try {
        await navigator.clipboard.writeText(pre.textContent);
        copy.textContent = 'Copied';
      } catch {
        getSelection().selectAllChildren(pre);
        copy.textContent = 'Selected';
      }
      setTimeout(() => (copy.textContent = 'Copy'), 1500);
    }, 'copy');
    area.append(copy, pre);
    place.append(area);
    const toggle = button('</>', () => show(area.hidden), 'show-code');
    const show = (isShown) => {
      area.hidden = !isShown;
      toggle.setAttribute('aria-expanded', String(isShown));
      if (isShown) fill();
    };
    toggle.setAttribute('aria-label', `Show me the code: ${$(`${panel}-name`).textContent}`);
    toggle.setAttribute('aria-controls', area.id);
    toggle.setAttribute('aria-expanded', 'false');
    toggle.title = 'Show me the code';
    place.querySelector('header').append(toggle);
    place.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape' || area.hidden) return;
      show(false);
      toggle.focus();
    });
    const fill = () => pre.replaceChildren(...highlighted(write(market, location.origin)));
    shown.push(fill);
  }
  return (name) => {
    market = name;
    for (const fill of shown) fill();
  };
}

/** The text as nodes, with what is special in it marked. */
function highlighted(text) {
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(WORD)) {
    nodes.push(text.slice(end, match.index), element('span', KINDS[match.slice(1).findIndex(Boolean)], match[0]));
    end = match.index + match[0].length;
  }
  return [...nodes, text.slice(end)];
}
