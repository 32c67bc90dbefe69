// How figures are written. Prices and quantities are the engine's texts: digits are grouped, never rounded.

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const minute = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' });
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 2 });

/** A decimal with its thousands grouped, as it is spelled otherwise. */
export function grouped(text) {
  const [whole, fraction] = String(text).split('.');
  const digits = whole.replace(/\B(?=(\d{3})+$)/g, ',');
  return fraction === undefined ? digits : `${digits}.${fraction}`;
}

/** How many digits a decimal has behind its point. */
export function places(text) {
  const [, fraction = ''] = String(text).split('.');
  return fraction.length;
}

export const fixed = (number, digits) => grouped(number.toFixed(digits));
export const compact = (value) => short.format(Number(value));
export const count = (number, one, many = `${one}s`) => `${grouped(number)} ${number === 1 ? one : many}`;
export const time = (ms) => clock.format(ms);
export const hour = (ms) => minute.format(ms);
export const date = (ms) => day.format(ms);
export const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;

/** From `then` to `now`, in percent, with its sign. */
export function change(then, now) {
  const part = Number(then) ? (Number(now) / Number(then) - 1) * 100 : 0;
  return { part, text: `${part < 0 ? '−' : '+'}${Math.abs(part).toFixed(2)} %` };
}
