// The list of markets: the last price, what 24 hours did to it, and its way there.

import { feed, past } from './data.js';
import { $, drawn, element, fitted, say, watched } from './dom.js';
import { change, grouped } from './numbers.js';
import { colours } from './theme.js';

const PERIOD = 300_000; // ms of a sparkline's point
const POINTS = 72;

/** One market's line. */
class Row {
  constructor(market, select) {
    this.day = market.day;
    this.points = []; // numbers, oldest first; the last is the present price
    this.period = 0;
    this.button = element('button', 'row');
    this.button.type = 'button';
    this.button.addEventListener('click', () => select(market.name));
    const name = element('span', 'name');
    name.append(element('b', '', market.base || market.name), element('small', '', market.quote && `/${market.quote}`));
    this.spark = element('canvas', 'spark');
    this.spark.setAttribute('aria-hidden', 'true');
    const figures = element('span', 'figures');
    this.price = element('span', 'price', '–');
    this.change = element('span', 'change', '–');
    figures.append(this.price, this.change);
    this.button.append(name, this.spark, figures);
    this.draw = drawn(() => this.#draw());
    watched(this.spark, this.draw);
    this.show(this.day);
  }

  /** What the last 24 hours were, `miniTicker` as it comes. */
  show(day) {
    if (!day) return;
    this.day = day;
    say(this.price, grouped(day.c));
    const { part, text } = change(day.o, day.c);
    say(this.change, text);
    this.change.dataset.side = part < 0 ? 'down' : 'up';
    if (!this.points.length) return;
    const period = Math.floor((day.E ?? Date.now()) / PERIOD);
    if (period > this.period) this.points = [...this.points, 0].slice(-POINTS);
    this.period = Math.max(period, this.period);
    this.points[this.points.length - 1] = Number(day.c);
    this.draw();
  }

  past(candles) {
    this.points = candles.map(({ close }) => Number(close));
    this.period = Math.floor((candles.at(-1)?.openTime ?? 0) / PERIOD);
    this.draw();
  }

  #draw() {
    const { context, width, height } = fitted(this.spark);
    if (this.points.length < 2 || !width) return;
    const low = Math.min(...this.points);
    const span = Math.max(...this.points) - low || 1;
    const { up, down } = colours('up', 'down');
    const colour = this.points.at(-1) < this.points[0] ? down : up;
    const x = (at) => (at / (this.points.length - 1)) * (width - 2) + 1;
    const y = (price) => height - 3 - ((price - low) / span) * (height - 6);
    context.beginPath();
    this.points.forEach((price, at) => context.lineTo(x(at), y(price)));
    context.strokeStyle = colour;
    context.lineWidth = 1.5;
    context.lineJoin = 'round';
    context.stroke();
    context.lineTo(x(this.points.length - 1), height);
    context.lineTo(x(0), height);
    context.globalAlpha = 0.14;
    context.fillStyle = colour;
    context.fill();
    context.globalAlpha = 1;
  }
}

/** `markets`: as `data.markets` gives them. `select` is called with a name; `changed` with what is new of a market. */
export class MarketList {
  #rows = new Map();
  #selected = null;

  constructor(markets, { select, changed }) {
    for (const market of markets) {
      const row = new Row(market, select);
      this.#rows.set(market.name, row);
      const item = element('li');
      item.append(row.button);
      $('market-list').append(item);
    }
    new ResizeObserver(() => this.#reveal()).observe($('market-list'));
    this.refresh();
    feed.batch('!miniTicker@arr', (batch) => {
      for (const day of batch.flat()) {
        this.#rows.get(day.s)?.show(day);
        changed(day);
      }
    });
  }

  /** What the sparklines show, from the daemon's memory. */
  refresh() {
    for (const [name, row] of this.#rows) past(name, '5m', POINTS, (candles) => row.past(candles));
  }

  day(name) {
    return this.#rows.get(name)?.day ?? null;
  }

  select(name) {
    for (const [each, { button }] of this.#rows) {
      button.setAttribute('aria-pressed', String(each === name));
      if (each === name) this.#selected = button.parentElement;
    }
    this.#reveal();
  }

  /** On a phone the list is a strip: bring the market that is shown into its middle. */
  #reveal() {
    if (this.#selected === null) return;
    const strip = $('market-list');
    strip.scrollLeft = this.#selected.offsetLeft - strip.offsetLeft - (strip.clientWidth - this.#selected.offsetWidth) / 2;
  }

  draw() {
    for (const row of this.#rows.values()) row.draw();
  }
}
