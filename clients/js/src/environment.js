// The world around a feed: the clock, chance, timers, pictures, and when it is worth to look again.

/** @typedef {import('./types.js').Environment} Environment */

/** Pictures are not drawn of a page that nobody sees; what waits for one goes on all the same. */
const UNSEEN = 250;
const FRAME = 16;

/**
 * Browsers draw when they are ready to; elsewhere there are 60 pictures a second.
 *
 * @param {() => void} callback
 */
function frame(callback) {
  const draws = typeof requestAnimationFrame === 'function';
  const timer = setTimeout(run, draws ? UNSEEN : FRAME);
  const request = draws ? requestAnimationFrame(run) : 0;

  function cancel() {
    clearTimeout(timer);
    if (draws) cancelAnimationFrame(request);
  }

  function run() {
    cancel();
    callback();
  }

  return cancel;
}

/**
 * Tell when the network is there again, and when the page is seen again.
 *
 * @param {() => void} callback
 */
function watch(callback) {
  const page = globalThis.document;
  const seen = () => page.visibilityState === 'visible' && callback();
  globalThis.addEventListener?.('online', callback);
  page?.addEventListener('visibilitychange', seen);
  return () => {
    globalThis.removeEventListener?.('online', callback);
    page?.removeEventListener('visibilitychange', seen);
  };
}

/**
 * The real world. What is global is looked up when it is used, so that it may be replaced.
 *
 * @returns {Environment}
 */
export function surroundings() {
  return {
    WebSocket: globalThis.WebSocket,
    now: () => Date.now(),
    setTimeout: (callback, delay) => setTimeout(callback, delay),
    clearTimeout: (timer) => clearTimeout(timer),
    random: () => Math.random(),
    frame,
    watch,
  };
}
