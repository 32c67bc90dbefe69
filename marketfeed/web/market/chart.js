// The chart: candles with volume and two averages. Drag, wheel, two fingers and keys move it; a crosshair reads it.

import { Candles, INTERVALS } from './candles.js';
import { $, button, drawn, element, fitted, say, sizeOf, watched } from './dom.js';
import { change, compact, date, fixed, hour, places, time } from './numbers.js';
import { colours } from './theme.js';

const [NARROWEST, WIDEST] = [2, 40]; // px from candle to candle
const FOOT = 22; // px of the axis of time
const MARGIN = 4; // candles' worth of room right of the present
const VOLUME = 0.18; // of the height
const AVERAGES = [[7, 'first'], [25, 'second']];
const FONT = '11px system-ui, sans-serif';
const DAY = 864e5;
const STEPS = [1e3, 5e3, 15e3, 3e4, 6e4, 3e5, 6e5, 9e5, 18e5, 36e5, 72e5, 144e5, 432e5, DAY, 2 * DAY, 7 * DAY, 30 * DAY];
const NAMES = ['back', 'panel', 'line', 'grid', 'text', 'soft', 'up', 'down', 'first', 'second', 'accent', 'tag', 'tag-text'];

/** The chart of one market at a time. */
export class Chart {
  #canvas = $('candles');
  #candles = null;
  #market = '';
  #interval = '1m';
  #digits = 2;
  #step = 8; // px from candle to candle
  #offset = 0; // how many candles the right edge is behind the present
  #cursor = null; // {x, y}, or {at} of the keyboard
  #pointers = new Map();
  #pinch = 0;
  #buttons = new Map();
  #averages = { of: null, at: 0, c: 0, lines: [] };

  constructor() {
    for (const interval of Object.keys(INTERVALS)) {
      const made = button(interval, () => this.open(this.#market, interval));
      this.#buttons.set(interval, made);
      $('intervals').append(made);
    }
    $('zoom-in').addEventListener('click', () => this.#zoom(1.25));
    $('zoom-out').addEventListener('click', () => this.#zoom(0.8));
    $('to-now').addEventListener('click', () => this.#move(-Infinity));
    this.draw = drawn(() => this.#draw());
    watched(this.#canvas, this.draw);
    watched($('legend'), this.draw);
    this.#listen();
  }

  open(market, interval = this.#interval, digits = this.#digits) {
    this.#candles?.close();
    [this.#market, this.#interval, this.#digits] = [market, interval, digits];
    [this.#offset, this.#cursor] = [0, null];
    for (const [each, made] of this.#buttons) made.setAttribute('aria-pressed', String(each === interval));
    const candles = new Candles(market, interval, () => candles === this.#candles && this.draw());
    this.#candles = candles;
    this.draw();
  }

  /** Ask for what was missed. */
  reload() {
    this.#candles?.load();
  }

  trade(price, at) {
    this.#digits = places(price);
    this.#candles?.trade(price, at);
  }

  // Who moves it.

  #listen() {
    const canvas = this.#canvas;
    canvas.addEventListener('pointerdown', (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.#pointers.set(event.pointerId, event);
      this.#pinch = this.#spread();
    });
    canvas.addEventListener('pointermove', (event) => {
      const before = this.#pointers.get(event.pointerId);
      if (before) this.#pointers.set(event.pointerId, event);
      if (this.#pointers.size > 1) {
        const spread = this.#spread();
        if (this.#pinch && spread) this.#zoom(spread / this.#pinch, event.offsetX);
        this.#pinch = spread;
      } else if (before) this.#move((event.clientX - before.clientX) / this.#step);
      this.#cursor = { x: event.offsetX, y: event.offsetY };
      this.draw();
    });
    const end = (event) => {
      this.#pointers.delete(event.pointerId);
      if (event.pointerType !== 'mouse') this.#leave();
    };
    canvas.addEventListener('pointerup', end);
    canvas.addEventListener('pointercancel', end);
    canvas.addEventListener('pointerleave', () => this.#leave());
    canvas.addEventListener('blur', () => this.#leave());
    canvas.addEventListener('wheel', (event) => {
      event.preventDefault();
      if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.#move(-event.deltaX / this.#step);
      else this.#zoom(Math.exp(-event.deltaY / 400), event.offsetX);
    }, { passive: false });
    canvas.addEventListener('keydown', (event) => this.#key(event));
  }

  #key(event) {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (way && event.shiftKey) this.#move(-way * 10);
    else if (way) this.#walk(way);
    else if (event.key === '+' || event.key === '=') this.#zoom(1.25);
    else if (event.key === '-') this.#zoom(0.8);
    else if (event.key === 'End') this.#move(-Infinity);
    else if (event.key === 'Escape') this.#leave();
    else return;
    event.preventDefault();
  }

  /** The crosshair to the next candle. */
  #walk(way) {
    const { length } = this.#candles.all;
    const { first, last } = this.#view();
    const at = Math.min(length - 1, Math.max(0, (this.#cursor?.at ?? length) + way));
    this.#cursor = { at };
    if (at < first) this.#move(first - at);
    else if (at > last) this.#move(last - at);
    this.draw();
  }

  #leave() {
    this.#cursor = null;
    this.draw();
  }

  #spread() {
    const [one, other] = [...this.#pointers.values()];
    return other ? Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) : 0;
  }

  #move(candles) {
    const most = Math.max(0, this.#candles.all.length - 10);
    this.#offset = Math.min(most, Math.max(0, this.#offset + candles));
    if (this.#view().first <= 0) this.#candles.back();
    this.draw();
  }

  /** The candle at `x` stays where it is; without `x` the present does. */
  #zoom(factor, x = this.#plot().right) {
    const { right } = this.#plot();
    const behind = (right - x) / this.#step;
    this.#step = Math.min(WIDEST, Math.max(NARROWEST, this.#step * factor));
    this.#move(behind - (right - x) / this.#step);
  }

  // Where things are.

  #plot() {
    const { width, height } = sizeOf(this.#canvas);
    const last = this.#candles?.all.at(-1)?.c ?? 0;
    const right = width - Math.max(56, fixed(last, this.#digits).length * 6.4 + 14);
    const bottom = height - FOOT;
    const top = sizeOf($('legend')).height + 18; // of one line or, in a narrow window, of several
    return { width, height, right, bottom, top, volume: (bottom - top) * VOLUME };
  }

  /** The first and the last candle that are seen, and where the candle `at` is. */
  #view() {
    const { right } = this.#plot();
    const newest = this.#candles.all.length - 1;
    const x = (at) => right - (newest + MARGIN - this.#offset - at) * this.#step;
    const first = Math.max(0, Math.floor(newest + MARGIN - this.#offset - right / this.#step));
    return { first, last: Math.min(newest, Math.ceil(newest + MARGIN - this.#offset)), x };
  }

  // Drawing.

  #draw() {
    const { context, width, height } = fitted(this.#canvas);
    if (!this.#candles || !width) return;
    const { all, isLoaded } = this.#candles;
    $('chart').dataset.candles = all.length;
    $('chart-note').hidden = all.length > 0;
    say($('chart-note'), isLoaded ? 'No trades in this market yet' : 'Asking for candles …');
    if (!all.length) return;
    const tones = colours(...NAMES);
    const plot = this.#plot();
    const view = this.#view();
    const seen = all.slice(view.first, view.last + 1);
    if (!seen.length) return;
    const averages = this.#average(all);
    let [low, high, most] = [Infinity, -Infinity, 0];
    for (const { l, h, v } of seen) [low, high, most] = [Math.min(low, l), Math.max(high, h), Math.max(most, v)];
    const least = (10 ** -this.#digits) * 10;
    const middle = (low + high) / 2;
    const half = Math.max(high - low, least) * 0.54;
    [low, high] = [middle - half, middle + half];
    const floor = plot.bottom - plot.volume - 8;
    const y = (price) => plot.top + ((high - price) / (high - low)) * (floor - plot.top);
    const price = (at) => high - ((at - plot.top) / (floor - plot.top)) * (high - low);

    context.font = FONT;
    context.lineWidth = 1;
    this.#grid(context, tones, plot, view, all, { low, high, y, floor });
    context.save();
    context.beginPath();
    context.rect(0, 0, plot.right, plot.bottom);
    context.clip();
    this.#bodies(context, tones, plot, view, seen, { y, most });
    averages.forEach((line, which) => {
      context.beginPath();
      for (let at = view.first; at <= view.last; at += 1) if (line[at] !== undefined) context.lineTo(view.x(at), y(line[at]));
      context.strokeStyle = tones[AVERAGES[which][1]];
      context.lineWidth = 1.25;
      context.stroke();
    });
    context.restore();
    this.#present(context, tones, plot, all.at(-1), { y, floor });
    this.#cross(context, tones, plot, view, all, averages, { y, price, floor });
    context.strokeStyle = tones.line;
    context.lineWidth = 1;
    context.strokeRect(-1, -1, plot.right + 1.5, plot.bottom + 1.5);
  }

  #grid(context, tones, { right, bottom }, { first, last, x }, all, { low, high, y, floor }) {
    context.strokeStyle = tones.grid;
    context.fillStyle = tones.soft;
    context.textBaseline = 'middle';
    context.textAlign = 'left';
    const step = nice((high - low) / Math.max(2, floor / 64));
    context.beginPath();
    for (let each = Math.ceil(low / step) * step; each < high; each += step) {
      const at = Math.round(y(each)) + 0.5;
      if (at > floor - 4) continue;
      context.moveTo(0, at);
      context.lineTo(right, at);
      context.fillText(fixed(each, this.#digits), right + 7, at);
    }
    const period = INTERVALS[this.#interval];
    const apart = STEPS.find((each) => each >= period && (each / period) * this.#step > 84) ?? STEPS.at(-1);
    context.textAlign = 'center';
    for (let at = first; at <= last; at += 1) {
      const local = all[at].t - new Date(all[at].t).getTimezoneOffset() * 6e4;
      if (local % apart) continue;
      const there = Math.round(x(at)) + 0.5;
      if (there < 20 || there > right - 20) continue;
      context.moveTo(there, 0);
      context.lineTo(there, bottom);
      const text = local % DAY === 0 ? date(all[at].t) : apart < 6e4 ? time(all[at].t) : hour(all[at].t);
      context.fillText(text, there, bottom + FOOT / 2 + 1);
    }
    context.stroke();
  }

  #bodies(context, tones, { bottom, volume }, { first, x }, seen, { y, most }) {
    const wide = Math.max(1, Math.floor(this.#step * 0.7));
    for (const side of ['up', 'down']) {
      context.fillStyle = tones[side];
      seen.forEach(({ o, h, l, c, v }, at) => {
        if ((c < o) !== (side === 'down')) return;
        const middle = Math.round(x(first + at));
        const left = middle - Math.floor(wide / 2);
        const [from, to] = [y(Math.max(o, c)), y(Math.min(o, c))];
        context.fillRect(middle, y(h), 1, Math.max(1, y(l) - y(h)));
        context.fillRect(left, from, wide, Math.max(1, to - from));
        context.globalAlpha = 0.38;
        const tall = most ? (v / most) * volume : 0;
        context.fillRect(left, bottom - tall, wide, tall);
        context.globalAlpha = 1;
      });
    }
  }

  /** The last price, as a line and a tag; the tag alone, at the edge, where it is out of what is seen. */
  #present(context, tones, plot, { o, c }, { y, floor }) {
    const there = y(c);
    const at = Math.min(floor, Math.max(12, there));
    const colour = c < o ? tones.down : tones.up;
    if (at === there) {
      context.strokeStyle = colour;
      context.setLineDash([3, 3]);
      line(context, 0, Math.round(at) + 0.5, plot.right, Math.round(at) + 0.5);
      context.setLineDash([]);
    }
    tag(context, colour, tones.panel, fixed(c, this.#digits), plot.right + 1, at, plot.width - plot.right - 2);
  }

  #cross(context, tones, plot, { first, last, x }, all, averages, { y, price, floor }) {
    const cursor = this.#cursor;
    let at = all.length - 1;
    if (cursor) {
      at = cursor.at ?? Math.round(all.length - 1 + MARGIN - this.#offset - (plot.right - cursor.x) / this.#step);
      at = Math.min(last, Math.max(first, at));
      const there = Math.round(x(at)) + 0.5;
      const height = cursor.y ?? y(all[at].c);
      context.strokeStyle = tones.soft;
      context.setLineDash([4, 4]);
      line(context, there, 0, there, plot.bottom);
      if (height < plot.bottom) line(context, 0, Math.round(height) + 0.5, plot.right, Math.round(height) + 0.5);
      context.setLineDash([]);
      const { t } = all[at];
      const text = INTERVALS[this.#interval] >= DAY ? date(t) : `${date(t)} ${INTERVALS[this.#interval] < 6e4 ? time(t) : hour(t)}`;
      const wide = context.measureText(text).width + 14;
      const left = Math.min(plot.right - wide, Math.max(0, there - wide / 2));
      tag(context, tones.tag, tones['tag-text'], text, left, plot.bottom + FOOT / 2, wide);
      if (height < floor) {
        tag(context, tones.tag, tones['tag-text'], fixed(price(height), this.#digits), plot.right + 1, height, plot.width - plot.right - 2);
      }
    }
    this.#legend(all[at], averages.map((each) => each[at]));
  }

  #legend({ t, o, h, l, c, v }, averages) {
    const write = (value) => fixed(value, this.#digits);
    const moved = change(o, c);
    const parts = [['O', write(o)], ['H', write(h)], ['L', write(l)], ['C', write(c)], ['', moved.text], ['Vol', compact(v)]];
    averages.forEach((value, which) => value !== undefined && parts.push([`MA ${AVERAGES[which][0]}`, write(value), AVERAGES[which][1]]));
    const legend = $('legend');
    if (legend.children.length !== parts.length) {
      legend.replaceChildren(...parts.map(() => {
        const made = element('span');
        made.append(element('b', '', ''), element('i', '', ''));
        return made;
      }));
    }
    parts.forEach(([name, value, kind], which) => {
      const [label, figure] = legend.children[which].children;
      say(label, name);
      say(figure, value);
      figure.className = kind ?? (which < 5 ? (moved.part < 0 ? 'down' : 'up') : '');
    });
    legend.dataset.time = t;
  }

  /** The averages of each candle's close and those before it; they are the same until a candle is another one. */
  #average(all) {
    const { t, c } = all.at(-1);
    const known = this.#averages;
    if (known.of !== all || known.length !== all.length || known.at !== t || known.c !== c) {
      this.#averages = { of: all, length: all.length, at: t, c, lines: AVERAGES.map(([over]) => average(all, over)) };
    }
    return this.#averages.lines;
  }
}

function average(all, over) {
  let sum = 0;
  return all.map(({ c }, at) => {
    sum += c - (at >= over ? all[at - over].c : 0);
    return at >= over - 1 ? sum / over : undefined;
  });
}

/** A round number that is at least so large: 1, 2 or 5 with noughts. */
function nice(least) {
  const unit = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].find((each) => each * unit >= least) * unit;
}

function line(context, fromX, fromY, toX, toY) {
  context.beginPath();
  context.moveTo(fromX, fromY);
  context.lineTo(toX, toY);
  context.stroke();
}

function tag(context, back, front, text, left, middle, wide) {
  context.fillStyle = back;
  context.beginPath();
  context.roundRect(left, middle - 9, wide, 18, 3);
  context.fill();
  context.fillStyle = front;
  context.textBaseline = 'middle';
  context.textAlign = 'left';
  context.fillText(text, left + 6, middle + 1);
}
