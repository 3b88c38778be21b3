// What the page shows, as it was embedded, and what follows from it.

const data = JSON.parse(document.getElementById("data").textContent);
const { report, trace, buffers } = data;
const ops = report.ops;
const groups = report.kernels;

/** How many kernels have a colour of their own: the costliest. */
const COLOURED = 7;

/** For each op, the place of its kernel among the report's. */
const groupOf = new Int32Array(ops.length);
groups.forEach((group, i) => group.ops.forEach(op => { groupOf[op] = i; }));

/** Names of kernels; of those that share one, with the kernel's number. */
const names = (() => {
  const seen = new Map();
  for (const group of groups) seen.set(group.name, (seen.get(group.name) ?? 0) + 1);
  return groups.map(group =>
    seen.get(group.name) > 1 && group.kernel !== null ? `${group.name} (${group.kernel})` : group.name);
})();

const nameOfOp = op => names[groupOf[op]];

/** For each op, those that wait for it. */
const after = ops.map(() => []);
data.ops.forEach((op, i) => op.before.forEach(wait => after[wait[0]].push(i)));

/** The spans of the trace. */
const spans = trace.spans.map(([op, part, parts, phase, thread, start, end]) =>
  ({ op, part, parts, phase, thread, start, end }));

const threadName = thread => thread === 0 ? "caller" : `helper ${thread}`;

/** The spans of each thread, by time. */
const tracks = Array.from({ length: Math.max(trace.threads, 1) }, () => []);
for (const span of spans) tracks[span.thread].push(span);
for (const track of tracks) track.sort((a, b) => a.start - b.start);

/** The phases of the run, and the times in which a thread waited for the others to end one. */
const phases = [];
const waits = tracks.map(() => []);
{
  const last = [];
  for (const span of spans) {
    const phase = phases[span.phase] ??= { from: 0, until: 0 };
    phase.until = Math.max(phase.until, span.end);
    const ends = last[span.phase] ??= tracks.map(() => 0);
    ends[span.thread] = Math.max(ends[span.thread], span.end);
  }
  let from = 0;
  phases.forEach((phase, i) => {
    phase.from = from;
    last[i].forEach((end, thread) => {
      const start = Math.max(end, from);
      if (tracks.length > 1 && phase.until > start) waits[thread].push({ start, end: phase.until, phase: i });
    });
    from = phase.until;
  });
}

/** What a thread did in this run, in nanoseconds. */
const sum = all => all.reduce((sum, { start, end }) => sum + end - start, 0);
const did = tracks.map((track, thread) => ({ busy: sum(track), waits: sum(waits[thread]) }));

/** The place of each op in the run's order, when it ran, and what it took, on all threads together. */
const place = new Int32Array(ops.length);
data.order.forEach((op, at) => { place[op] = at; });
const began = new Float64Array(ops.length).fill(Infinity);
const ended = new Float64Array(ops.length);
const took = new Float64Array(ops.length);
for (const { op, start, end } of spans) {
  began[op] = Math.min(began[op], start);
  ended[op] = Math.max(ended[op], end);
  took[op] += end - start;
}

/** The temps that lie in the arena, with what uses them. */
const temps = (() => {
  const users = buffers.map(() => []);
  const writer = buffers.map(() => null);
  for (const op of data.order) {
    for (const [buffer, , , access] of data.ops[op].touches) {
      if (users[buffer].at(-1) !== op) users[buffer].push(op);
      if (access !== "reads") writer[buffer] ??= op;
    }
  }
  return buffers.flatMap((buffer, i) => {
    const used = users[i];
    if (buffer.offset === null || !used.length) return [];
    return [{
      buffer: i, offset: buffer.offset, bytes: buffer.bytes, users: used, writer: writer[i] ?? used[0],
      first: place[used[0]], last: place[used.at(-1)] + 1,
      start: Math.min(...used.map(op => began[op])), end: Math.max(...used.map(op => ended[op])),
    }];
  });
})();

const bufferName = i => {
  const { name, role } = buffers[i];
  return name === null ? `${role} #${i}` : `${role} ${name}`;
};

/** Of the sizes that are read about as fast, the largest each: where a cache ends. */
const plateaus = rates => rates.bandwidth.filter((level, i, all) => i + 1 === all.length || all[i + 1].read < 0.75 * level.read);

/** What so many threads of the machine can do: the rates of the most that are no more. */
const ratesFor = (machine, threads) =>
  machine.rates.filter(rates => rates.threads <= threads).sort((a, b) => b.threads - a.threads)[0];

/**
 * What the machine could do of a kernel's operations and bytes in a second, on as many threads as it had and with its bytes
 * where they lie: what `of peak` holds it against.
 */
function limits(i) {
  const all = groups[i].ops.map(op => ops[op]);
  const rate = (amount, least) => {
    const span = all.reduce((sum, op) => sum + op[least] / Math.max(op.threads, 1), 0);
    return span > 0 ? all.reduce((sum, op) => sum + op[amount], 0) / span * 1e9 : null;
  };
  return { flops: rate("flops", "arithmetic_ns"), bytes: rate("bytes", "memory_ns") };
}
