// What a feed is told, checked: whoever says something that cannot be hears at once what would be accepted.

/** @typedef {import('./types.js').Options} Options */

const TIMES = {
  backoffBase: 500,
  backoffMost: 30_000,
  stableAfter: 10_000,
  connectTimeout: 15_000,
  pingInterval: 15_000,
  pingTimeout: 10_000,
};
const OTHERS = ['token', 'WebSocket', 'affinity', 'environment'];
const LONGEST = 2 ** 31 - 1; // of a timer

/** @typedef {typeof TIMES} Times In ms. */

/**
 * @param {Options} options
 * @returns {Times}
 */
export function timesOf(options) {
  const times = { ...TIMES };
  for (const [name, value] of Object.entries(options)) {
    if (name in TIMES) times[/** @type {keyof Times} */ (name)] = whole(name, value, LONGEST);
    else if (!OTHERS.includes(name)) {
      throw new TypeError(`${name}: expected one of ${[...OTHERS, ...Object.keys(TIMES)].join(', ')}`);
    }
  }
  return times;
}

/**
 * @param {string} name
 * @param {unknown} value
 * @param {number} most
 * @returns {number}
 */
export function whole(name, value, most) {
  if (Number.isInteger(value) && /** @type {number} */ (value) >= 1 && /** @type {number} */ (value) <= most) {
    return /** @type {number} */ (value);
  }
  throw new TypeError(`${name}: expected a whole number from 1 to ${most}, not ${value}`);
}

/**
 * The address to connect to.
 *
 * @param {unknown} given An absolute address, or in a page one that is relative to it.
 * @param {string} affinity
 * @returns {string}
 */
export function address(given, affinity) {
  let url;
  try {
    url = new URL(/** @type {string} */ (given), globalThis.location?.href);
    url.protocol = url.protocol.replace('http', 'ws');
    if (!/^wss?:$/.test(url.protocol)) throw 0;
  } catch {
    throw new TypeError(`url: expected ws://, wss://, http:// or https:// and a host, not ${given}`);
  }
  url.hash = '';
  if (!url.searchParams.has('affinity')) url.searchParams.set('affinity', affinity);
  return url.href;
}

/**
 * @param {string} name
 * @param {unknown} handler
 * @returns {{handler: (...args: any[]) => unknown, isActive: boolean}} Whoever is called, until it does not want to be.
 */
export function entryOf(name, handler) {
  if (typeof handler !== 'function') throw new TypeError(`${name}: expected a function, not ${handler}`);
  return { handler: /** @type {any} */ (handler), isActive: true };
}
