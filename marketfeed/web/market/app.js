// The market page: one market at a time in five panels, which share one connection.

import { Chart } from './chart.js';
import { codePanels } from './code.js';
import { ConnectionPanel } from './connection.js';
import { insist, markets } from './data.js';
import { $, element, say } from './dom.js';
import { LadderPanel } from './ladder.js';
import { MarketList } from './list.js';
import { change, compact, grouped, places } from './numbers.js';
import { Tape } from './tape.js';
import { themed } from './theme.js';

const TITLE = 500; // ms after which the tab may say another price
const FACTS = ['24 h change', '24 h high', '24 h low', '24 h volume', '24 h turnover'];

const chart = new Chart();
const ladder = new LadderPanel();
const tape = new Tape(traded);
const connection = new ConnectionPanel(() => {
  chart.reload();
  list?.refresh();
});
const showCode = codePanels();
let known = new Map(); // markets by name
let list = null;
let market = '';
let last = null; // the price that is shown

const facts = FACTS.map((name) => {
  const value = element('dd', '', '–');
  const pair = element('div');
  pair.append(element('dt', '', name), value);
  $('facts').append(pair);
  return value;
});

themed($('theme'), () => {
  chart.draw();
  connection.draw();
  list?.draw();
});

function select(name) {
  if (name === market) return;
  market = name;
  last = null;
  const { base, quote, day } = known.get(name);
  say($('name'), quote ? `${base}/${quote}` : name);
  showDay(list.day(name) ?? day);
  list.select(name);
  chart.open(name, undefined, places(day?.c ?? '0.00'));
  ladder.open(name);
  tape.open(name);
  showCode(name);
  if (location.hash.slice(1) !== name) history.replaceState(null, '', `#${name}`);
}

function traded({ price, at, side }) {
  showPrice(price, side);
  ladder.price(price, side);
  chart.trade(price, at);
}

function showPrice(price, side) {
  last = price;
  say($('last'), grouped(price));
  if (side) $('last').dataset.side = side;
}

/** What the tab says. The browser works on it outside of the page, so it is not written with each picture. */
function showTitle() {
  const title = last === null ? 'marketfeed' : `${grouped(last)} ${$('name').textContent} – marketfeed`;
  if (title !== document.title) document.title = title;
}

function showDay(day) {
  const { quote = '' } = known.get(market) ?? {};
  const moved = day ? change(day.o, day.c) : null;
  const texts = day
    ? [moved.text, grouped(day.h), grouped(day.l), compact(day.v), `${compact(day.q)} ${quote}`]
    : FACTS.map(() => '–');
  texts.forEach((text, at) => say(facts[at], text));
  facts[0].dataset.side = moved && moved.part < 0 ? 'down' : 'up';
  if (day && last === null) showPrice(day.c, facts[0].dataset.side);
}

async function begin() {
  const found = await insist(async () => {
    const all = await markets();
    if (!all.length) throw new Error('there is no market yet');
    return all;
  });
  found.sort((one, other) => Number(other.day?.q ?? 0) - Number(one.day?.q ?? 0));
  known = new Map(found.map((each) => [each.name, each]));
  list = new MarketList(found, { select, changed: (day) => day.s === market && showDay(day) });
  const asked = decodeURIComponent(location.hash.slice(1));
  select(known.has(asked) ? asked : found[0].name);
  setInterval(showTitle, TITLE);
  addEventListener('hashchange', () => {
    const name = decodeURIComponent(location.hash.slice(1));
    if (known.has(name)) select(name);
  });
  document.documentElement.dataset.ready = 'yes';
}

begin();
