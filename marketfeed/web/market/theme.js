// Dark or light: as the system has it, until somebody says otherwise.

const system = matchMedia('(prefers-color-scheme: dark)');
const KEPT = 'marketfeed-theme';
const NEXT = { dark: 'light', light: 'dark' };

let chosen = null;
try {
  chosen = localStorage.getItem(KEPT);
} catch {
  // nothing may be kept here, so nothing is
}
if (!(chosen in NEXT)) chosen = null;

const current = () => chosen ?? (system.matches ? 'dark' : 'light');

const known = new Map(); // of the present theme: to ask the browser would make it work out all styles at once

/** Colours by their names in market.css, as they are now. */
export function colours(...names) {
  const style = getComputedStyle(document.documentElement);
  for (const name of names) if (!known.has(name)) known.set(name, style.getPropertyValue(`--${name}`).trim());
  return Object.fromEntries(names.map((name) => [name, known.get(name)]));
}

/** Let `toggle` change it, and say so to `changed`, also when the system does. */
export function themed(toggle, changed) {
  const show = () => {
    document.documentElement.dataset.theme = current();
    known.clear();
    toggle.textContent = current() === 'dark' ? 'Light' : 'Dark';
    toggle.setAttribute('aria-label', `${toggle.textContent} colours`);
    changed();
  };
  system.addEventListener('change', show);
  toggle.addEventListener('click', () => {
    const next = NEXT[current()];
    chosen = next === (system.matches ? 'dark' : 'light') ? null : next;
    try {
      if (chosen) localStorage.setItem(KEPT, chosen);
      else localStorage.removeItem(KEPT);
    } catch {
      // it is for this visit then
    }
    show();
  });
  show();
}
