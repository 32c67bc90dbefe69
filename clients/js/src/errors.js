// What can go wrong, and whether trying again may help: errors are temporary or final.

/**
 * What went wrong.
 *
 * - `closed`: the connection ended; `code` is the WebSocket close code.
 * - `dead`: the connection gave no sign of life.
 * - `timeout`: an attempt to connect took too long.
 * - `url`, `token`: the address or the token could not be had, or cannot be used.
 * - `protocol`: the server sent what is no message of marketfeed.
 * - `refused`: the server refused a request; `code` is that of the error reply, `stream` the stream that it is about.
 * - `not-open`: there is no open connection for the request.
 * - `handler`: a function of the application threw; `cause` is what it threw.
 *
 * @typedef {'closed' | 'dead' | 'timeout' | 'url' | 'token' | 'protocol' | 'refused' | 'not-open' | 'handler'} ErrorKind
 */

/** An error of the feed. */
export class FeedError extends Error {
  /**
   * @param {ErrorKind} kind
   * @param {string} message For a person; a program goes by `kind`, `code` and `final`.
   * @param {{final?: boolean, code?: number, stream?: string, cause?: unknown}} [more]
   */
  constructor(kind, message, { final = false, code, stream, cause } = {}) {
    super(message, { cause });
    this.name = 'FeedError';
    this.kind = kind;
    /** True: trying again cannot help, and nobody tries. Without a `stream` the feed is closed. */
    this.final = final;
    /** The close code, or the code of the error reply. */
    this.code = code;
    /** The stream that it is about, if it is about one. */
    this.stream = stream;
  }
}

/** The close codes behind which connecting again cannot help: a fault of this client, or of what it was told to ask. */
const FINAL = [1002, 1003, 1007, 1009];
const UNAUTHORIZED = 4401;
const TOO_MANY_REQUESTS = 4029;
const CALM = 5;

/**
 * The end of a connection.
 *
 * @param {number} code
 * @param {string} reason
 * @param {boolean} canRenew Whether there is a function that may give another token.
 * @param {unknown} cause
 * @param {string} unreached The address, if the connection has never been open: browsers do not say why.
 */
export function closedWith(code, reason, canRenew, cause, unreached) {
  const final = FINAL.includes(code) || (code === UNAUTHORIZED && !canRenew);
  const what = unreached ? `no connection to ${unreached}` : `the connection was closed with ${code}`;
  const why = reason || /** @type {any} */ (cause)?.message || (unreached && 'out of reach, or refused (address, origin, token)');
  return new FeedError('closed', `${what}${why && `: ${why}`}`, { final, code, cause });
}

/**
 * How many failed attempts an error counts for, at least: who asked too much comes back later than others.
 *
 * @param {FeedError} error
 */
export function weightOf(error) {
  return error.code === TOO_MANY_REQUESTS ? CALM : 1;
}
