// The shapes of what comes, for those who read and for TypeScript; nothing is executed. docs/protocol.md has them all.

/**
 * A decimal, as the engine spells it. It is a number only where the engine writes numbers.
 *
 * @typedef {string} Decimal
 */

/**
 * One execution. `t`: its id; `m`: whether the buyer is the maker; `p`, `q`: price and quantity; `s`: the market.
 *
 * @typedef {{e: 'trade', t: number, m: boolean, p: Decimal, q: Decimal, s: string, E?: number, T?: number}} Trade
 */

/**
 * A price and its quantity.
 *
 * @typedef {[price: Decimal, quantity: Decimal]} Level
 */

/**
 * Asks and bids that changed, or with `snapshot` all there are. `U`, `u`: the ids of the first and the last change.
 *
 * @typedef {object} Depth
 * @property {'depth' | 'depthUpdate'} e
 * @property {Level[]} a
 * @property {Level[]} b
 * @property {number} [U]
 * @property {number} [u]
 * @property {boolean} [snapshot]
 * @property {string} [s]
 * @property {number} [E]
 */

/**
 * The last price, `c`, and what else the engine says of the last 24 hours.
 *
 * @typedef {{e: 'ticker' | '24hrTicker', c: Decimal, s: string, E?: number, [field: string]: unknown}} Ticker
 */

/**
 * The best bid and ask with their quantities.
 *
 * @typedef {{e: 'bookTicker', u?: number, s: string, b: Decimal, B: Decimal, a: Decimal, A: Decimal, E: number}} BookTicker
 */

/**
 * The best levels of a book, best first.
 *
 * @typedef {{e: string, s: string, lastUpdateId?: number, bids: Level[], asks: Level[], E: number}} PartialDepth
 */

/**
 * A candle. `k.t`, `k.T`: when it opens and closes; `k.x`: whether it is closed; `k.o`, `k.h`, `k.l`, `k.c`: its prices.
 *
 * @typedef {object} Kline
 * @property {'kline'} e
 * @property {number} E
 * @property {string} s
 * @property {{t: number, T: number, s: string, i: string, f: number, L: number, o: Decimal, c: Decimal, h: Decimal,
 *   l: Decimal, v: Decimal, n: number, x: boolean, q: Decimal, V: Decimal, Q: Decimal, B: Decimal}} k
 */

/**
 * The last 24 hours in a few numbers.
 *
 * @typedef {{e: '24hrMiniTicker', E: number, s: string, c: Decimal, o: Decimal, h: Decimal, l: Decimal, v: Decimal,
 *   q: Decimal}} MiniTicker
 */

/**
 * What a stream brings, by its name. Of kinds that are not built in it is anything.
 *
 * @template {string} S
 * @typedef {S extends `trade@${string}` ? Trade
 *   : S extends `depth@${string}` ? Depth
 *   : S extends `ticker@${string}` ? Ticker
 *   : S extends `bookTicker@${string}` ? BookTicker
 *   : S extends `depth${number}@${string}` ? PartialDepth
 *   : S extends `kline_${string}@${string}` ? Kline
 *   : S extends `miniTicker@${string}` ? MiniTicker
 *   : S extends `!miniTicker@${string}` ? MiniTicker[]
 *   : any} DataOf
 */

/**
 * One publication in its envelope. `offset`: its place in the stream, where the stream has offsets; `past`: true if it
 * is from before the subscription, and was recovered or rewound.
 *
 * @typedef {{stream: string, data: any, offset?: string, past?: true}} Message
 */

/**
 * What the feed is doing: an attempt to connect is under way; a connection is open; the feed waits before the next
 * attempt; it is over for good.
 *
 * @typedef {'connecting' | 'open' | 'waiting' | 'closed'} State
 */

/**
 * The events, by name. Moments are in ms since 1970.
 *
 * - `state`: the feed's state has changed.
 * - `reconnecting`: the next attempt comes after `delay` ms; `attempt` counts from 1 since a connection was good;
 *   `hinted`: the server asked for that delay.
 * - `message`: a publication, of any stream; behind the handlers of the stream.
 * - `recovered`: what was asked for after a loss is known. With `recovered` everything that was missed has come, `count`
 *   publications; without it something is missing, which a `gap` will say before the next publication.
 * - `rewound`: so many of the last publications follow, `past` ones.
 * - `gap`: publications of the streams may have been missed since `from`; `to` is null while that lasts.
 * - `quality`: messages are left out or merged because this client reads too slowly; or no more.
 * - `expiring`: the token is good until `expiresAt`.
 * - `overflow`: a `for await` loop is too slow, and the oldest publications are dropped: `limit` were waiting.
 * - `error`: see FeedError.
 *
 * @typedef {object} FeedEvents
 * @property {{state: State, previous: State}} state
 * @property {{delay: number, attempt: number, hinted: boolean}} reconnecting
 * @property {Message} message
 * @property {{stream: string, recovered: boolean, count: number}} recovered
 * @property {{stream: string, count: number}} rewound
 * @property {{streams: string[], reason: string, from: number | null, to: number | null}} gap
 * @property {{streams: string[], level: 'thinned' | 'live', at: number}} quality
 * @property {{at: number, expiresAt: number}} expiring
 * @property {{stream: string, limit: number}} overflow
 * @property {import('./errors.js').FeedError} error
 */

/**
 * Who is called for a stream or an event.
 *
 * @template {string} N
 * @typedef {N extends keyof FeedEvents ? (event: FeedEvents[N]) => unknown
 *   : (data: DataOf<N>, message: Message) => unknown} Handler
 */

/**
 * What is used of a WebSocket: that of browsers, of Node 22, and of the package ws are good.
 *
 * @typedef {object} Socket
 * @property {string} [binaryType] As what binary frames come.
 * @property {((event: any) => void) | null} onopen
 * @property {((event: any) => void) | null} onmessage
 * @property {((event: any) => void) | null} onclose
 * @property {((event: any) => void) | null} onerror
 * @property {(data: string) => void} send
 * @property {(code?: number) => void} close
 */

/** @typedef {new (url: string, protocols?: string[]) => Socket} SocketConstructor */

/**
 * What the feed has of the world around it. Every part may be replaced, by tests for example.
 *
 * @typedef {object} Environment
 * @property {SocketConstructor} [WebSocket]
 * @property {() => number} now Milliseconds since 1970.
 * @property {(callback: () => void, delay: number) => unknown} setTimeout
 * @property {(timer: any) => void} clearTimeout
 * @property {() => number} random From 0 to 1, without 1.
 * @property {(callback: () => void) => () => void} frame Call back when the next picture is drawn; returns how to cancel it.
 * @property {(callback: () => void) => () => void} watch Call back whenever the network is there again, or the page is
 *   seen again; returns how to end that.
 */

/**
 * A value, or a function that is asked for it before each attempt to connect.
 *
 * @template T
 * @typedef {T | (() => T | Promise<T>)} Askable
 */

/**
 * The options of a feed. Times are in ms.
 *
 * @typedef {object} Options
 * @property {Askable<string | undefined>} [token] Who the client is.
 * @property {SocketConstructor} [WebSocket] Where there is no global one.
 * @property {string} [affinity] What brings this client back to the same of several instances; made up if it is not given.
 * @property {number} [backoffBase] The bound of the first pause between attempts, 500.
 * @property {number} [backoffMost] The bound of all pauses, 30,000.
 * @property {number} [stableAfter] A connection that lasts so long is good, 10,000: the pauses begin anew.
 * @property {number} [connectTimeout] How long an attempt may take, with the questions for address and token, 15,000.
 * @property {number} [pingInterval] After so long without a message a sign of life is asked for, 15,000.
 * @property {number} [pingTimeout] A connection that gives none for so long is dead, 10,000.
 * @property {Partial<Environment>} [environment] Other parts of the world, for tests.
 */

export {};
