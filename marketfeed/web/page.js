// The status page: asks for /status.json once a second and fills in page.html. The daemon keeps nothing for it.

import { Charts } from './charts.js';
import * as format from './format.js';
import { Samples, sum } from './workers.js';

const EVERY = 1000; // ms
const NEAR = 0.8; // of a limit
const $ = (id) => document.getElementById(id);

const kept = new Samples();
let samples = []; // of all workers together
let several = false; // whether there are any
let answered = null; // when the daemon last answered, in ms of this computer's clock
let timer = null;
const charts = new Charts($('charts'), $('cursor'));

// The tables: each column has a heading, what stands in a cell, and a class.

const WORKER = ['worker', (row) => row.worker ?? '–', 'number']; // only where there are several
const CLIENT = [
  ['client', (row) => opener(row.client, () => openClient(row.client))],
  ['queue', (row) => of(format.size(row.waiting), row.waiting, row.limit), 'number'],
  ['conflated', (row) => format.count(row.conflated), 'number'],
  ['round trip', (row) => format.delay(row.rtt), 'number'],
  ['address', (row) => row.peer, 'text'],
  ['user', (row) => row.user || '–'],
  ['streams', (row) => format.count(row.streams), 'number'],
  ['here for', (row) => format.span(row.age), 'number'],
  WORKER,
];
const CLOSED = [
  ['at', (row) => format.time(row.at)],
  ['code', (row) => row.code, 'number'],
  ['reason', (row) => `${row.reason || '–'} (${row.by})`, 'long'],
  ['client', (row) => row.client, 'text'],
  ['address', (row) => row.peer, 'text'],
  ['user', (row) => row.user || '–'],
  ['was here', (row) => format.span(row.age), 'number'],
  ['left waiting', (row) => format.size(row.waiting), 'number'],
];
const REFUSED = [
  ['at', (row) => format.time(row.at)],
  ['status', (row) => row.status, 'number'],
  ['reason', (row) => row.reason],
  ['address', (row) => row.peer, 'text'],
  ['answer', (row) => row.text, 'long'],
];
const STREAM = [
  ['stream', (row) => (row.is_private ? row.stream : opener(row.stream, () => openStream(row.stream)))],
  ['a second', (row) => format.rate(row.rate), 'number'],
  ['clients', (row) => format.count(row.clients), 'number'],
  ['last heard', (row) => (row.heard ? format.time(row.heard) : 'never')],
  ['state', (row) => (row.state == null ? '–' : row.levels == null ? row.state : `${row.state}, ${format.count(row.levels)} levels`)],
  ['gap', (row) => (row.gap ? marked(`${row.gap[0]} since ${format.time(row.gap[1])}`, 'bad') : '–')],
  ['kept', (row) => format.count(row.kept), 'number'],
  WORKER,
];
const KIND = [
  ['kind', (row) => row.name],
  ['publications', (row) => format.count(row.publications), 'number'],
  ['deliveries', (row) => format.count(row.deliveries), 'number'],
  ['conflated', (row) => format.count(row.conflated), 'number'],
  ['dropped', (row) => Object.entries(row.dropped).map(([reason, n]) => `${reason} ${format.count(n)}`).join(', ') || '–', 'long'],
  ['last heard', (row) => (row.last ? format.time(row.last) : 'never')],
];
const LINK = [
  ['connection', (row) => row.link],
  ['state', (row) => (row.up ? marked('up', 'good') : marked('down', 'bad'))],
  ['address', (row) => row.address, 'text'],
  ['owes an answer for', (row) => (row.pinged == null ? '–' : format.delay(row.pinged)), 'number'],
  ['made anew', (row) => format.count(row.reconnects), 'number'],
  ['cause', (row) => row.cause || '–', 'long'],
  WORKER,
];
const OUTAGE = [
  ['link', (row) => row.link],
  ['from', (row) => format.time(row.since)],
  ['to', (row) => (row.until == null ? marked('still', 'bad') : format.time(row.until))],
  ['for', (row) => format.span(((row.until ?? Date.now()) - row.since) / 1000), 'number'],
  ['clients told', (row) => format.count(row.told), 'number'],
  WORKER,
];

async function ask() {
  clearTimeout(timer);
  try {
    const answer = await fetch(`/status.json?since=${kept.seq}`, { signal: AbortSignal.timeout(5000) });
    if (answer.status === 401 || answer.status === 403) return location.reload();
    if (!answer.ok) throw new Error(`the daemon answers ${answer.status}`);
    show(await answer.json());
    answered = Date.now();
  } catch {
    silent();
  }
  timer = setTimeout(ask, EVERY);
}

function silent() {
  const since = answered ? ` for ${format.span((Date.now() - answered) / 1000)}; the figures below are of then` : '';
  $('news').dataset.level = 'bad';
  $('summary').textContent = `The daemon does not answer this page${since}.`;
  $('more').hidden = true;
}

function show(status) {
  showNews(status);
  if (!status.workers.length) return; // none of them answers, which the news say
  samples = kept.add(status);
  several = status.workers.some((row) => row.worker > 0);
  const worker = sum(status.workers);
  const uptime = format.span((status.at - worker.since) / 1000);
  const count = status.workers.length === 1 ? 'one worker' : `${status.workers.length} workers`;
  const process = several ? count : `process ${worker.pid}`;
  $('process').textContent = `${status.version}, Python ${status.python}, ${process}, up for ${uptime}`;
  fill($('limits'), Object.entries(worker.limits).map(([name, limit]) => limitTile(name, limit)));
  fill($('rates'), rateTiles(worker));
  charts.show(samples);
  if (!listed.client.active) table('slowest', CLIENT, worker.slowest, 'nobody is connected');
  if (!listed.stream.active) table('busiest', STREAM, worker.busiest, 'no stream is followed');
  table('closed', CLOSED, [...worker.recent.closed].reverse().slice(0, 20), 'nobody has gone yet');
  table('refused', REFUSED, [...worker.recent.refused].reverse().slice(0, 20), 'nobody was refused');
  $('refusals').textContent = worker.refusals.map((row) => `${row.status} ${row.reason}: ${format.count(row.count)}`).join(' · ');
  table('kinds', KIND, Object.entries(worker.kinds).map(([name, kind]) => ({ name, ...kind })), '');
  table('links', LINK, worker.links, '');
  table('outages', OUTAGE, [...worker.outages].reverse(), 'none since the start');
  const options = Object.entries(worker.options);
  fill($('options'), options.length ? options.flatMap(([flag, value]) => [element('dt', flag), element('dd', value)]) : [element('dd', 'none')]);
}

function showNews(status) {
  const level = status.news[0]?.level ?? 'good';
  $('news').dataset.level = level;
  if ($('summary').textContent !== status.summary) $('summary').textContent = status.summary;
  const rest = status.news.filter((each) => !status.summary.includes(each.text));
  fill($('more'), rest.map((each) => element('li', each.text, each.level)));
  $('more').hidden = !rest.length;
  document.title = `${level === 'bad' ? '✗ ' : level === 'warn' ? '! ' : ''}marketfeed`;
}

function limitTile(name, { value, peak, limit, option }) {
  const write = name === 'memory' || name === 'history' ? format.size : format.count;
  const part = limit ? value / limit : 0;
  const made = tile(name, write(value));
  made.dataset.level = name !== 'history' && part >= 1 ? 'bad' : name !== 'history' && part >= NEAR ? 'warn' : 'good';
  const of = limit ? `of ${write(limit)}, ${option}` : `no limit, ${option}`;
  if (limit) {
    const bar = element('div', null, 'bar');
    const [now, most] = [element('i'), element('b')];
    now.style.width = `${Math.min(100, part * 100)}%`;
    most.style.width = `${Math.min(100, (peak / limit) * 100)}%`;
    bar.append(now, most);
    made.append(bar);
  }
  made.append(element('div', of, 'of'), element('div', `peak ${write(peak)}`, 'of'));
  return made;
}

function rateTiles(worker) {
  const last = samples.at(-1) ?? {};
  const most = (field) => Math.max(0, ...samples.map((sample) => sample[field] ?? 0));
  const tiles = [
    ['publications a second', 'publications', format.rate],
    ['deliveries a second', 'deliveries', format.rate],
    ['fan-out p99', 'fanout_p99', format.delay],
    ['waiting for slow clients', 'backlog', format.size],
    ['CPU of one core', 'cpu', format.share],
  ].map(([name, field, write]) => tile(name, write(last[field]), `at most ${write(most(field))} in 15 min`));
  const clients = `${format.count(worker.connections)} clients since the start`;
  return [...tiles, tile('subscriptions', format.count(worker.subscriptions), clients)];
}

function tile(name, value, below) {
  const made = element('li');
  made.append(element('div', name, 'name'), element('div', value, 'value'));
  if (below) made.append(element('div', below, 'of'));
  return made;
}

// Whoever searches or sorts has a list of its own, which is asked for instead.

const listed = {
  client: { path: '/clients.json', table: 'slowest', columns: CLIENT, empty: 'no client is like that', active: false },
  stream: { path: '/streams.json', table: 'busiest', columns: STREAM, empty: 'no stream is like that', active: false },
};

for (const [name, list] of Object.entries(listed)) {
  const form = $(`find-${name}`);
  const [text, order] = [$(`${name}-text`), $(`${name}-order`)];
  const refresh = async () => {
    list.active = text.value !== '' || order.selectedIndex > 0;
    if (!list.active) return;
    const query = new URLSearchParams({ q: text.value, sort: order.value, limit: 50 });
    try {
      const answer = await fetch(`${list.path}?${query}`);
      if (answer.ok && list.active) table(list.table, list.columns, await answer.json(), list.empty);
    } catch {
      // the next answer of the status says it
    }
  };
  form.addEventListener('input', refresh);
  form.addEventListener('submit', (event) => event.preventDefault());
  setInterval(refresh, EVERY);
}

// One client, one stream.

async function openClient(client) {
  const answer = await fetch(`/clients/${encodeURIComponent(client)}.json`);
  if (!answer.ok) return open(client, [element('p', 'It has gone.')]);
  const facts = await answer.json();
  open(client, [
    factList(shown(CLIENT).slice(1).map(([heading, write]) => [heading, write(facts)])),
    element('h3', 'Streams'),
    element('pre', facts.names.join('\n') || 'none'),
  ]);
}

async function openStream(stream) {
  const answer = await fetch(`/streams/${encodeURIComponent(stream)}.json`);
  if (!answer.ok) return open(stream, [element('p', 'It is followed no longer.')]);
  const facts = await answer.json();
  const subscribers = element('table');
  rows(subscribers, shown(CLIENT).map(([heading, write, kind], at) => (at ? [heading, write, kind] : [heading, (row) => row.client, 'text'])), facts.subscribers, 'nobody');
  const wide = element('div', null, 'wide');
  wide.tabIndex = 0;
  wide.setAttribute('role', 'region');
  wide.setAttribute('aria-label', 'Its clients');
  wide.append(subscribers);
  open(stream, [
    factList([...STREAM.slice(1, -1).map(([heading, write]) => [heading, write(facts)]), ['offset', facts.offset ?? '–']]),
    element('h3', 'Last publications, newest first'),
    element('pre', facts.last.map((each) => each.data).join('\n') || 'none is kept'),
    element('h3', 'Watch it'),
    element('pre', facts.watch),
    element('h3', 'Its clients, slowest first'),
    wide,
  ]);
}

function open(name, parts) {
  $('detail-name').textContent = name;
  fill($('detail-facts'), parts);
  if (!$('detail').open) $('detail').showModal();
}

// What everything is made of. Nothing that came from outside is ever markup.

function element(tag, text = null, kind = '') {
  const made = document.createElement(tag);
  if (text != null) made.append(text);
  if (kind) made.className = kind;
  return made;
}

function marked(text, kind) {
  return element('span', text, kind);
}

function of(text, value, limit) {
  const part = limit ? value / limit : 0;
  return part >= 0.5 ? marked(text, part >= NEAR ? 'bad' : 'warn') : text;
}

function opener(name, act) {
  const button = element('button', name);
  button.type = 'button';
  button.addEventListener('click', act);
  return button;
}

function factList(pairs) {
  const list = element('dl');
  for (const [name, value] of pairs) list.append(element('dt', name), element('dd', value));
  return list;
}

/** Put `parts` in place of what is there. */
function fill(place, parts) {
  place.replaceChildren(...parts);
}

function table(id, columns, data, empty) {
  const place = $(id);
  const focused = place.contains(document.activeElement) ? document.activeElement.textContent : null;
  rows(place, columns, data, empty);
  if (focused != null) [...place.querySelectorAll('button')].find((each) => each.textContent === focused)?.focus();
}

function shown(columns) {
  return several ? columns : columns.filter((column) => column !== WORKER);
}

function rows(place, all, data, empty) {
  const columns = shown(all);
  const head = element('tr');
  for (const [heading, , kind] of columns) {
    const cell = element('th', heading, kind === 'number' ? 'number' : '');
    cell.scope = 'col';
    head.append(cell);
  }
  const body = data.map((row) => {
    const line = element('tr');
    for (const [, write, kind] of columns) line.append(element('td', write(row), kind));
    return line;
  });
  if (!data.length) {
    const line = element('tr');
    const cell = element('td', empty, 'empty');
    cell.colSpan = columns.length;
    line.append(cell);
    body.push(line);
  }
  place.replaceChildren(head, ...body);
}

document.addEventListener('visibilitychange', () => document.hidden || ask());
ask();
