// Charts of the samples, all over the same time, a quarter of an hour at most, drawn on canvases. A cursor is shared by all of them.

import * as format from './format.js';

const [LEAST, MOST] = [60, 900]; // seconds that are shown: since the daemon started, within these

/** name, [field, label] pairs, how a figure is written. */
const CHARTS = [
  ['Clients', [['clients', '']], format.count],
  ['Publications a second', [['publications', '']], format.rate],
  ['Deliveries a second', [['deliveries', '']], format.rate],
  ['Fan-out, arrival to last write', [['fanout_p99', 'p99'], ['fanout_p50', 'p50']], format.delay],
  ['Engine to arrival', [['engine_p99', 'p99'], ['engine_p50', 'p50']], format.delay],
  ['Loop delay, at most', [['loop_delay', '']], format.delay],
  ['Memory', [['memory', '']], format.size],
  ['Waiting for slow clients', [['backlog', '']], format.size],
  ['CPU of one core', [['cpu', '']], format.share],
];

export class Charts {
  /** Fills `place`; `readout` shows the time under the cursor. */
  constructor(place, readout) {
    this.samples = [];
    this.seconds = LEAST;
    this.cursor = null; // ms since 1970
    this.readout = readout;
    this.drawn = CHARTS.map(([name, lines, write]) => new Chart(this, place, name, lines, write));
    new ResizeObserver(() => this.draw()).observe(place);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.draw());
  }

  /** Samples as objects, oldest first. */
  show(samples) {
    this.samples = samples;
    const age = samples.length ? (samples.at(-1).at - samples[0].at) / 1000 : 0;
    this.seconds = Math.min(MOST, Math.max(LEAST, age));
    this.draw();
  }

  point(at) {
    this.cursor = at;
    this.draw();
  }

  draw() {
    const sample = this.cursor == null ? null : nearest(this.samples, this.cursor);
    this.readout.textContent = sample ? `at ${format.time(sample.at)}` : '';
    for (const chart of this.drawn) chart.draw(sample);
  }
}

class Chart {
  constructor(charts, place, name, lines, write) {
    Object.assign(this, { charts, name, lines, write });
    const figure = document.createElement('figure');
    const caption = document.createElement('figcaption');
    const title = document.createElement('span');
    title.textContent = name;
    this.value = document.createElement('span');
    this.value.className = 'value';
    caption.append(title, this.value);
    this.canvas = document.createElement('canvas');
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute('role', 'img');
    figure.append(caption, this.canvas);
    place.append(figure);
    this.canvas.addEventListener('pointermove', (event) => {
      const box = this.canvas.getBoundingClientRect();
      charts.point(this.timeAt((event.clientX - box.left) / box.width));
    });
    this.canvas.addEventListener('pointerleave', () => charts.point(null));
    this.canvas.addEventListener('blur', () => charts.point(null));
    this.canvas.addEventListener('keydown', (event) => {
      const step = { ArrowLeft: -10, ArrowRight: 10, Home: -MOST, End: MOST }[event.key];
      if (step === undefined || !charts.samples.length) return;
      event.preventDefault();
      const [first, last] = [charts.samples[0].at, charts.samples.at(-1).at];
      charts.point(Math.min(last, Math.max(first, (charts.cursor ?? last) + step * 1000)));
    });
  }

  timeAt(share) {
    const last = this.charts.samples.at(-1)?.at ?? 0;
    return last - (1 - share) * this.charts.seconds * 1000;
  }

  draw(pointed) {
    const samples = this.charts.samples;
    const shown = pointed ?? samples.at(-1);
    const words = this.lines.map(([field, label]) => `${label ? `${label} ` : ''}${this.write(shown?.[field])}`);
    this.value.textContent = words.join(', ');
    const values = samples.map((sample) => sample[this.lines[0][0]]).filter((value) => value != null);
    const most = Math.max(0, ...values);
    this.canvas.setAttribute('aria-label', `${this.name}: ${words.join(', ')}; at most ${this.write(most)} in this time`);

    const ratio = devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const pen = this.canvas.getContext('2d');
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    if (!samples.length) return;
    const [top, bottom] = [12, height - 14];
    const end = samples.at(-1).at;
    const x = (at) => width - ((end - at) / (this.charts.seconds * 1000)) * width;
    const y = (value) => bottom - (most ? value / most : 0) * (bottom - top);

    pen.strokeStyle = color('--line');
    pen.fillStyle = color('--soft');
    pen.font = '11px system-ui, sans-serif';
    pen.lineWidth = 1;
    for (const at of [top, bottom]) line(pen, 0, at + 0.5, width, at + 0.5);
    pen.textBaseline = 'bottom';
    pen.fillText(this.write(most), 2, top - 1);
    pen.textBaseline = 'top';
    for (const share of [1, 2 / 3, 1 / 3]) {
      const at = end - share * this.charts.seconds * 1000;
      const time = format.time(at);
      pen.fillText(this.charts.seconds < 300 ? time : time.slice(0, 5), Math.max(0, x(at)), bottom + 2);
    }
    for (const [field, name] of [['gaps', '--gap'], ['reconnects', '--reconnect']]) {
      pen.strokeStyle = color(name);
      for (const sample of samples) if (sample[field]) line(pen, x(sample.at), top, x(sample.at), bottom);
    }
    this.lines.forEach(([field], at) => {
      pen.strokeStyle = color(at ? '--second' : '--accent');
      pen.lineWidth = 1.5;
      pen.beginPath();
      let before = null;
      for (const sample of samples) {
        const value = sample[field];
        if (value != null) {
          const isNext = before && sample.at - before.at < 10_000;
          if (isNext) pen.lineTo(x(sample.at), y(value));
          else pen.moveTo(x(sample.at), y(value));
          if (!isNext) pen.lineTo(x(sample.at) + 0.5, y(value));
          before = sample;
        }
      }
      pen.stroke();
    });
    if (pointed) {
      pen.strokeStyle = color('--text');
      pen.lineWidth = 1;
      line(pen, x(pointed.at), top, x(pointed.at), bottom);
    }
  }
}

function line(pen, x0, y0, x1, y1) {
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
}

function nearest(samples, at) {
  let found = null;
  for (const sample of samples) if (!found || Math.abs(sample.at - at) < Math.abs(found.at - at)) found = sample;
  return found;
}
