// Decimals as engines spell them, compared exactly. Prices stay the strings that they are.

const SPELLING = /^([+-]?)(\d*)\.?(\d*)(?:e([+-]?\d+))?$/i;

/**
 * Whether it is one, with a digit at least.
 *
 * @param {string} text
 */
export function isDecimal(text) {
  return text !== '' && SPELLING.test(text) && Number.isFinite(Number(text));
}

/**
 * Less than 0, 0, or more than 0, as `one` is less than `other`, the same, or more. `1000.5` and `1000.50` are the same.
 *
 * @param {string} one
 * @param {string} other
 * @returns {number}
 */
export function compare(one, other) {
  if (one === other) return 0;
  return Number(one) - Number(other) || exactly(one, other);
}

/**
 * For what is the same as doubles: these never differ the other way round than the decimals do.
 *
 * @param {string} one
 * @param {string} other
 */
function exactly(one, other) {
  const [a, scale] = read(one);
  const [b, otherScale] = read(other);
  const least = scale < otherScale ? scale : otherScale;
  const difference = a * 10n ** (scale - least) - b * 10n ** (otherScale - least);
  return difference < 0n ? -1 : difference > 0n ? 1 : 0;
}

/**
 * As a whole number, times ten to the power of another.
 *
 * @param {string} text
 * @returns {[bigint, bigint]}
 */
function read(text) {
  const [, sign, whole, fraction, exponent = '0'] = SPELLING.exec(text) ?? [undefined, '', '0', ''];
  const digits = BigInt(`${whole}${fraction}`);
  return [sign === '-' ? -digits : digits, BigInt(exponent) - BigInt(fraction.length)];
}
