// Figures as people read them. Everything takes null for "not known", and shows a dash.

const whole = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });
const DASH = '–';

/** 12431 → "12,431". */
export function count(value) {
  return value == null ? DASH : whole.format(value);
}

/** Of a second: 0.4 → "0.4", 1234.5 → "1,235". */
export function rate(value) {
  return value == null ? DASH : value > 0 && value < 10 ? value.toFixed(1) : whole.format(value);
}

/** Bytes: 1536 → "1.5 KiB". */
export function size(value) {
  if (value == null) return DASH;
  for (const unit of ['bytes', 'KiB', 'MiB']) {
    if (Math.abs(value) < 1024) return `${unit === 'bytes' || value >= 100 ? value.toFixed(0) : value.toFixed(1)} ${unit}`;
    value /= 1024;
  }
  return `${value.toFixed(1)} GiB`;
}

/** Seconds, of what is short: 0.0004 → "0.4 ms". */
export function delay(value) {
  if (value == null) return DASH;
  if (value >= 1) return `${value.toFixed(1)} s`;
  const milliseconds = value * 1000;
  return `${milliseconds >= 10 || Number.isInteger(milliseconds) ? milliseconds.toFixed(0) : milliseconds.toFixed(1)} ms`;
}

/** Seconds, of what is long: 3725 → "1 h 2 min". */
export function span(value) {
  if (value == null) return DASH;
  const seconds = Math.floor(value);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

/** A share of a core: 0.25 → "25 %". */
export function share(value) {
  return value == null ? DASH : `${(value * 100).toFixed(0)} %`;
}

/** ms since 1970 → "14:02:10", in UTC. */
export function time(value) {
  return value == null ? DASH : new Date(value).toISOString().slice(11, 19);
}
