// The connection, in words: how good it is, what was cut off, and that nothing was missed.

import { cut, feed } from './data.js';
import { $, drawn, element, fitted, say, watched } from './dom.js';
import { count, grouped, seconds, time } from './numbers.js';
import { colours } from './theme.js';

const SLOTS = 120; // of half a second, which the pulse shows
const SLOT = 500;
const QUIET = 5000; // ms without a message, after which that is said
const EVENTS = 6;
const RECENT = 2000; // ms that a delay is good for

/** What to call a delay from the engine to this page, in ms. */
const WORDS = [[50, 'Excellent'], [200, 'Good'], [1000, 'Fair'], [Infinity, 'Slow']];

/** The panel, and the pill at the top. `returned` is called when a connection is there again. */
export class ConnectionPanel {
  #returned;
  #began = Date.now();
  #slots = []; // {at, count, isOut}, oldest first
  #count = 0;
  #heardAt = 0;
  #delays = []; // of the present slot
  #delay = null; // {ms, at}
  #lostAt = null; // of a loss that lasts
  #outage = null; // the last one: {recovered, missed, lasted}
  #wasOpen = false;
  #thinned = new Set();
  #gaps = new Map(); // reasons of those that last, by stream
  #text = '';

  constructor(returned) {
    this.#returned = returned;
    feed.on('message', (message) => this.#heard(message.data?.E, message.past));
    feed.on('state', ({ state, previous }) => this.#state(state, previous));
    feed.on('recovered', (event) => this.#recovered(event));
    feed.on('gap', (event) => this.#gap(event));
    feed.on('quality', ({ streams, level }) => {
      for (const each of streams) this.#thinned[level === 'thinned' ? 'add' : 'delete'](each);
      this.#tell(level === 'thinned' ? 'This browser reads too slowly: messages are merged' : 'Every message comes again');
    });
    feed.on('error', (error) => {
      if (error.kind !== 'closed') this.#tell(`${error.message}`);
    });
    $('cut').addEventListener('click', () => {
      if (feed.state !== 'open') return;
      this.#tell('You cut the connection');
      cut();
    });
    this.draw = drawn(() => this.#draw());
    watched($('pulse'), this.draw);
    setInterval(() => this.#tick(), SLOT);
    this.#show();
  }

  #heard(at, isPast) {
    this.#heardAt = Date.now();
    if (isPast) return;
    this.#count += 1;
    if (typeof at === 'number') this.#delays.push(this.#heardAt - at);
  }

  #state(state, previous) {
    const now = Date.now();
    if (previous === 'open') {
      this.#lostAt = now;
      this.#outage = null;
      this.#gaps.clear();
      this.#thinned.clear();
      this.#tell('Connection lost: a gap is open');
    } else if (state === 'open') {
      if (this.#wasOpen) {
        const lasted = now - (this.#lostAt ?? now);
        this.#outage = { recovered: 0, missed: [], lasted };
        this.#tell(`Back after ${seconds(lasted)}: resuming`);
        this.#returned();
      } else this.#tell('Connected');
      this.#wasOpen = true;
      this.#lostAt = null;
    }
    this.#show();
  }

  #recovered({ stream, recovered, count: many }) {
    if (!this.#outage) return;
    if (recovered) this.#outage.recovered += many;
    else this.#outage.missed.push(stream);
    this.#judge();
  }

  #gap({ streams, reason, to }) {
    for (const each of streams) {
      if (to === null) this.#gaps.set(each, reason);
      else this.#gaps.delete(each);
    }
    if (reason === 'not-recovered' && this.#outage) {
      for (const each of streams) if (!this.#outage.missed.includes(each)) this.#outage.missed.push(each);
      this.#judge();
    } else this.#tell(`Gap ${to === null ? 'open' : 'closed'}: ${reason}, ${count(streams.length, 'stream')}`);
  }

  /** What became of the last outage. */
  #judge() {
    const { recovered, missed } = this.#outage;
    const text = missed.length
      ? `Something was missed: ${missed.join(', ')} (${grouped(recovered)} recovered)`
      : `Nothing missed (${grouped(recovered)} recovered)`;
    $('verdict').hidden = false;
    $('verdict').dataset.level = missed.length ? 'warn' : 'good';
    say($('verdict'), text);
    this.#tell(text, true);
  }

  /** A line in the list. `isSame`: it says better what the last line of its kind said. */
  #tell(text, isSame = false) {
    const list = $('events');
    const first = list.firstElementChild;
    if (isSame && first?.dataset.verdict) say(first.lastElementChild, text);
    else {
      const item = element('li');
      item.append(element('time', '', time(Date.now())), element('span', '', text));
      if (isSame) item.dataset.verdict = 'yes';
      list.prepend(item);
    }
    while (list.children.length > EVENTS) list.lastElementChild.remove();
  }

  #tick() {
    const now = Date.now();
    this.#slots.push({ count: this.#count, isOut: feed.state !== 'open' && this.#wasOpen });
    if (this.#slots.length > SLOTS) this.#slots.shift();
    this.#count = 0;
    if (this.#delays.length) {
      this.#delays.sort((one, other) => one - other);
      this.#delay = { ms: Math.max(0, this.#delays[this.#delays.length >> 1]), at: now };
      this.#delays = [];
    }
    this.#show();
    if (!document.hidden) this.draw();
  }

  #show() {
    const now = Date.now();
    const { level, words, pill } = this.#judgement(now);
    if (words !== this.#text) {
      this.#text = words;
      $('words').textContent = words;
      $('words').dataset.level = level;
      $('pill').dataset.level = level;
      say($('pill-text'), pill);
    }
    const recent = this.#slots.slice(-10).filter((slot) => !slot.isOut);
    const rate = recent.reduce((sum, slot) => sum + slot.count, 0) / (Math.max(1, recent.length) * (SLOT / 1000));
    const delay = this.#delay && now - this.#delay.at < RECENT ? `, ${Math.round(this.#delay.ms)} ms behind` : '';
    const isOpen = feed.state === 'open';
    say($('figures'), isOpen ? `${grouped(Math.round(rate))} messages a second${delay}` : this.#since(now));
    $('cut').disabled = !isOpen;
  }

  #since(now) {
    const since = this.#lostAt ?? this.#began;
    return `${this.#lostAt ? 'For' : 'Trying for'} ${seconds(now - since)}; the page shows what it had`;
  }

  /** How it is, in a sentence. */
  #judgement(now) {
    if (feed.state === 'closed') return { level: 'bad', words: 'Closed: reload the page to begin anew.', pill: 'closed' };
    if (feed.state !== 'open') {
      if (!this.#wasOpen) return { level: 'wait', words: 'Connecting …', pill: 'connecting' };
      return { level: 'bad', words: 'Cut off: reconnecting by itself.', pill: 'cut off' };
    }
    const [reason] = this.#gaps.values();
    if (reason) return { level: 'warn', words: `Connected, but the source has a gap: ${reason}.`, pill: 'gap' };
    if (this.#thinned.size) return { level: 'warn', words: 'Connected, but this browser reads too slowly.', pill: 'thinned' };
    if (this.#heardAt && now - this.#heardAt > QUIET) return { level: 'warn', words: 'Connected, and all is quiet.', pill: 'quiet' };
    const [, word] = WORDS.find(([most]) => (this.#delay?.ms ?? 0) <= most);
    return { level: word === 'Slow' ? 'warn' : 'good', words: `${word}: every message arrives.`, pill: 'live' };
  }

  #draw() {
    const { context, width, height } = fitted($('pulse'));
    const { up, down, line } = colours('up', 'down', 'line');
    const step = width / SLOTS;
    const most = Math.max(8, ...this.#slots.map((slot) => slot.count));
    this.#slots.forEach(({ count: many, isOut }, at) => {
      const left = (SLOTS - this.#slots.length + at) * step;
      if (isOut) {
        context.fillStyle = down;
        context.globalAlpha = 0.28;
        context.fillRect(left, 0, step + 0.5, height);
        context.globalAlpha = 1;
      }
      const tall = (many / most) * (height - 4);
      context.fillStyle = up;
      context.fillRect(left, height - tall, Math.max(1, step - 1), tall);
    });
    context.fillStyle = line;
    context.fillRect(0, height - 1, width, 1);
  }
}
