// What the panels are made of. Nothing that came from outside is ever markup.

export const $ = (id) => document.getElementById(id);

export function element(tag, kind = '', text = '') {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  made.append(text);
  return made;
}

/** A button that does something. */
export function button(text, act, kind = '') {
  const made = element('button', kind, text);
  made.type = 'button';
  made.addEventListener('click', act);
  return made;
}

/** Change the text of a node that `element` made, if it is another one: what stays costs the browser nothing. */
export function say(node, text) {
  const held = node.firstChild;
  if (held?.nodeType !== Node.TEXT_NODE) node.textContent = text;
  else if (held.data !== text) held.data = text;
}

const sizes = new WeakMap();
const draws = new WeakMap();
const watcher = new ResizeObserver((changes) => {
  for (const { target, contentRect } of changes) {
    sizes.set(target, { width: Math.round(contentRect.width), height: Math.round(contentRect.height) });
    draws.get(target)();
  }
});

/** Call `draw` once the place of a node is known, and whenever it is another one. */
export function watched(node, draw) {
  draws.set(node, draw);
  watcher.observe(node);
}

/** The place of a node that is `watched`. To ask the node itself would make the browser lay out the page at once. */
export const sizeOf = (node) => sizes.get(node) ?? { width: 0, height: 0 };

/** Fit a canvas to its place and the screen's pixels; its context, which counts in CSS pixels from the upper left.
 * The canvas is one that is `watched`. */
export function fitted(canvas) {
  const { width, height } = sizeOf(canvas);
  const ratio = window.devicePixelRatio || 1;
  const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
  const context = canvas.getContext('2d');
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height, ratio };
}

/** A function that calls `draw` once before the next picture, however often it is called. */
export function drawn(draw) {
  let isDue = false;
  return () => {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame((now) => {
      isDue = false;
      draw(now);
    });
  };
}
