// Several processes as one: what each of them answers is added up, and their samples are put together by the second.

const KEPT = 900;
const WORST = new Set(['engine_p50', 'engine_p99', 'fanout_p50', 'fanout_p99', 'loop_delay']);
const ROWS = 10;

/** The samples of each worker, as they come. */
export class Samples {
  #boot = null;
  #kept = new Map();

  /** Take what an answer has, and return all that there are, oldest first. */
  add(status) {
    if (status.boot !== this.#boot) [this.#boot, this.#kept] = [status.boot, new Map()];
    const there = new Map();
    for (const { worker, samples } of status.workers) {
      const kept = this.#kept.get(worker) ?? [];
      const last = kept.at(-1)?.seq ?? 0;
      const rows = samples.map((row) => Object.fromEntries(status.fields.map((field, at) => [field, row[at]])));
      there.set(worker, [...kept, ...rows.filter((row) => row.seq > last)].slice(-KEPT));
    }
    this.#kept = there;
    return there.size === 1 ? [...there.values()][0] : together([...there.values()]);
  }

  /** The number of the last sample that there is of every worker. */
  get seq() {
    return this.#kept.size ? Math.min(...[...this.#kept.values()].map((kept) => kept.at(-1)?.seq ?? 0)) : 0;
  }
}

/** The samples of several workers, by the second; the last second only where all have it. */
function together(lists) {
  const seconds = new Map();
  for (const sample of lists.flat()) {
    const second = Math.round(sample.at / 1000);
    const sum = seconds.get(second);
    if (!sum) seconds.set(second, { ...sample, at: second * 1000 });
    else for (const [field, value] of Object.entries(sample)) sum[field] = field === 'at' ? sum.at : added(field, sum[field], value);
  }
  const complete = Math.min(...lists.map((list) => Math.round((list.at(-1)?.at ?? Infinity) / 1000)));
  return [...seconds.values()].filter((sample) => sample.at <= complete * 1000).sort((a, b) => a.at - b.at).slice(-KEPT);
}

function added(field, one, other) {
  if (one == null || other == null) return one ?? other;
  return WORST.has(field) || field === 'seq' ? Math.max(one, other) : one + other;
}

/** The rows of all workers as one row; what is listed in it says whose it is. */
export function sum(workers) {
  if (workers.length < 2) return workers[0];
  const all = (take) => workers.flatMap((row) => take(row).map((each) => ({ ...each, worker: row.worker })));
  const count = (name) => workers.reduce((total, row) => total + row[name], 0);
  return {
    since: Math.min(...workers.map((row) => row.since)),
    limits: merged(workers.map((row) => row.limits), limits),
    kinds: merged(workers.map((row) => row.kinds), kinds),
    links: all((row) => row.links),
    outages: all((row) => row.outages).sort((a, b) => a.since - b.since),
    subscriptions: count('subscriptions'),
    connections: count('connections'),
    refusals: refusals(all((row) => row.refusals)),
    recent: {
      closed: all((row) => row.recent.closed).sort((a, b) => a.at - b.at),
      refused: all((row) => row.recent.refused).sort((a, b) => a.at - b.at),
    },
    slowest: all((row) => row.slowest).sort((a, b) => b.waiting - a.waiting || b.conflated - a.conflated).slice(0, ROWS),
    busiest: all((row) => row.busiest).sort((a, b) => (b.rate ?? 0) - (a.rate ?? 0)).slice(0, ROWS),
    options: workers[0].options,
  };
}

/** Objects with the same names in them, as one. */
function merged(objects, add) {
  const made = {};
  for (const [name, value] of objects.flatMap(Object.entries)) made[name] = name in made ? add(made[name], value) : value;
  return made;
}

function limits(one, other) {
  return {
    value: one.value + other.value,
    peak: one.peak + other.peak,
    limit: one.limit == null || other.limit == null ? null : one.limit + other.limit,
    option: one.option,
  };
}

function kinds(one, other) {
  const made = { dropped: merged([one.dropped, other.dropped], (a, b) => a + b), last: Math.max(one.last, other.last) || null };
  for (const name of ['publications', 'deliveries', 'conflated']) made[name] = one[name] + other[name];
  return made;
}

function refusals(rows) {
  const found = new Map();
  for (const row of rows) {
    const key = `${row.status} ${row.reason}`;
    found.set(key, { ...row, count: (found.get(key)?.count ?? 0) + row.count });
  }
  return [...found.values()];
}
