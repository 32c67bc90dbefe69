// The tape: trades as they come, newest first. It begins with those that were before, and marks what was recovered.

import { feed } from './data.js';
import { $, element, say } from './dom.js';
import { grouped, time } from './numbers.js';

const ROWS = 60;
const CALM = 4; // so many new rows at a time may be lit up

/** The tape of one market at a time. `traded` is called with the newest trade and which way the price went. */
export class Tape {
  #traded;
  #place = $('trades');
  #stop = () => {};
  #rows = []; // of the page, newest first; the last is used again for the next trade

  constructor(traded) {
    this.#traded = traded;
  }

  open(market) {
    this.#stop();
    this.#rows = [];
    this.#place.replaceChildren();
    let isResumed = false; // past trades are what was missed, not what was asked for at the beginning
    let batch = [];
    const stops = [
      feed.on('recovered', ({ stream }) => {
        if (stream === `trade@${market}`) isResumed = false;
      }),
      feed.on('state', ({ previous }) => {
        if (previous === 'open') isResumed = true;
      }),
      feed.on(`trade@${market}`, (trade, { past }) => batch.push([trade, Boolean(past && isResumed)]), { rewind: ROWS }),
      feed.batch(`trade@${market}`, () => {
        const all = batch;
        batch = [];
        this.#show(all);
      }, { rewind: ROWS }),
    ];
    this.#stop = () => stops.forEach((stop) => stop());
  }

  #show(batch) {
    if (!batch.length) return;
    const fresh = batch.slice(-ROWS);
    const isCalm = fresh.length <= CALM;
    const rows = fresh.map(([{ p, q, m, T, E }, isRecovered], before) => {
      const row = this.#rows.length + before < ROWS ? this.#row() : this.#rows.pop();
      const [price, quantity, at] = row.children;
      say(price, grouped(p));
      say(quantity, grouped(q));
      say(at, T ?? E ? time(T ?? E) : '');
      row.className = `${m ? 'down' : 'up'}${isCalm ? ' fresh' : ''}${isRecovered ? ' recovered' : ''}`;
      row.title = isRecovered ? 'recovered after the connection was back' : '';
      return row;
    }).reverse();
    this.#rows.unshift(...rows);
    this.#place.prepend(...rows);
    const [{ p, m, T, E }] = fresh.at(-1);
    this.#traded({ price: p, at: T ?? E ?? Date.now(), side: m ? 'down' : 'up' });
  }

  #row() {
    const row = element('li');
    row.append(element('span', 'price'), element('span'), element('span', 'time'));
    return row;
  }
}
