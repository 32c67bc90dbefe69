// The ladder: twenty levels a side, as `depth20@…@100ms` brings them, with bars for what stands up to each.

import { feed } from './data.js';
import { $, element, say } from './dom.js';
import { fixed, grouped, places } from './numbers.js';

const LEVELS = 20;

/** One side. Its rows are made once, the best one first. */
class Side {
  constructor(place) {
    this.rows = Array.from({ length: LEVELS }, () => {
      const row = element('li');
      const bar = element('i');
      const [price, quantity, total] = [element('span', 'price'), element('span'), element('span')];
      row.append(bar, price, quantity, total);
      row.hidden = true;
      place.append(row);
      return { row, bar, price, quantity, total };
    });
  }

  /** @returns what all levels hold together. */
  show(levels, sums, most, digits) {
    this.rows.forEach(({ row, bar, price, quantity, total }, at) => {
      row.hidden = at >= levels.length;
      if (row.hidden) return;
      say(price, grouped(levels[at][0]));
      say(quantity, grouped(levels[at][1]));
      say(total, fixed(sums[at], digits));
      bar.style.transform = `scaleX(${most ? sums[at] / most : 0})`;
    });
  }
}

/** The ladder of one market at a time. */
export class LadderPanel {
  #asks = new Side($('asks'));
  #bids = new Side($('bids'));
  #stop = () => {};
  #last = '';

  open(market) {
    this.#stop();
    this.#show({ bids: [], asks: [] });
    $('ladder').dataset.update = '';
    say($('middle-price'), '–');
    this.#stop = feed.batch(`depth20@${market}@100ms`, (batch) => this.#show(batch.at(-1)));
  }

  /** The price of the last trade, between the sides. */
  price(text, side) {
    say($('middle-price'), text === null ? '–' : `${grouped(text)} ${side === 'down' ? '↓' : '↑'}`);
    $('middle').dataset.side = side;
  }

  #show({ bids, asks, lastUpdateId }) {
    const [bidSums, askSums] = [sums(bids), sums(asks)];
    const [bidTotal, askTotal] = [bidSums.at(-1) ?? 0, askSums.at(-1) ?? 0];
    const digits = Math.max(0, ...bids.map(([, quantity]) => places(quantity)), ...asks.map(([, quantity]) => places(quantity)));
    const most = Math.max(bidTotal, askTotal);
    this.#asks.show(asks, askSums, most, digits);
    this.#bids.show(bids, bidSums, most, digits);
    $('ladder').dataset.update = lastUpdateId ?? '';
    const share = bidTotal + askTotal ? bidTotal / (bidTotal + askTotal) : 0.5;
    $('balance-bar').style.transform = `scaleX(${share})`;
    const part = Math.round(share * 100);
    say($('balance-bids'), `Bids ${part} %`);
    say($('balance-asks'), `${100 - part} % asks`);
    if (!bids.length || !asks.length) {
      say($('spread'), '');
      return;
    }
    const [bid, ask] = [bids[0][0], asks[0][0]];
    const spread = Number(ask) - Number(bid);
    say($('spread'), `Spread ${fixed(spread, places(ask))} (${((spread / Number(ask)) * 100).toFixed(3)} %)`);
  }
}

function sums(levels) {
  let sum = 0;
  return levels.map(([, quantity]) => (sum += Number(quantity)));
}
