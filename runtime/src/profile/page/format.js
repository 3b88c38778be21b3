// Numbers as a person reads them.

const UNITS = {
  time: [[1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]],
  bytes: [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "B"]],
  count: [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]],
};

const NARROW = "\u202f";

/** Three digits, or all that a whole number has. */
function digits(n) {
  const size = Math.abs(n);
  return size >= 99.95 || n === 0 ? n.toFixed(0) : size < 1e-5 ? n.toExponential(2) : n.toPrecision(3);
}

function withUnit(n, units) {
  const [size, unit] = units.find(([size]) => Math.abs(n) >= size * 0.9995) ?? units.at(-1);
  const whole = size === 1 && Number.isInteger(n);
  return `${whole ? n : digits(n / size)}${unit && NARROW + unit}`;
}

const time = ns => withUnit(ns, UNITS.time);
const bytes = n => withUnit(n, UNITS.bytes);
const count = n => withUnit(n, UNITS.count);
const giga = rate => digits(rate / 1e9);
const LITTLE = `<${NARROW}0.1${NARROW}%`;
const percent = share => share > 0 && share < 0.0005 ? LITTLE
  : `${(100 * share).toFixed(share >= 0.9995 && share < 10 ? 0 : 1)}${NARROW}%`;
const plural = (n, what) => `${n.toLocaleString("en-GB")} ${what}${n === 1 ? "" : /ch$/.test(what) ? "es" : "s"}`;

/** Some round numbers from `from` to `to`, about `wanted` of them, no closer than `least`. */
function ticks(from, to, wanted, least = 0) {
  const raw = Math.max((to - from) / Math.max(wanted, 1), least, 1e-9);
  const ten = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(m => m * ten).find(s => s >= raw * 0.999) ?? ten * 10;
  const all = [];
  for (let i = Math.ceil(from / step - 1e-9); i * step <= to * (1 + 1e-12); i++) all.push(i * step);
  return all;
}

/** A tick of time, all of an axis in one unit and with as many digits as its step needs. */
function timeTick(at, step, end) {
  if (at === 0) return "0";
  const [size, unit] = UNITS.time.find(([size]) => end >= size) ?? UNITS.time.at(-1);
  const after = Math.max(0, Math.ceil(-Math.log10(step / size) - 1e-9));
  return `${(at / size).toFixed(Math.min(after, 6))}${NARROW}${unit}`;
}

/** Round numbers along an axis of logarithms: decades, and where few are seen, steps within them. */
function logTicks(from, to) {
  const steps = to - from < 1 ? [1, 2, 3, 5, 7] : to - from < 2 ? [1, 2, 5] : [1];
  const all = [];
  for (let n = Math.floor(from); n <= to; n++) all.push(...steps.map(step => n + Math.log10(step)));
  return all.filter(at => at >= from - 1e-9 && at <= to + 1e-9);
}

/** What stands at one of them. */
function logTick(at) {
  const n = Math.floor(at + 1e-9);
  const step = Math.round(10 ** (at - n));
  return n >= 0 && n < 6 ? (step * 10 ** n).toLocaleString("en-GB") : n < 0 && n > -4 ? (step * 10 ** n).toFixed(-n) : `${step}e${n}`;
}

/** Of what comes to more than the peak, why that may be. */
const OVER = "more than the peak: the plan states more than this run moved, as for the largest value of a variable, caches held it, "
  + "or the peak was measured while the machine had other work";
const isOver = group => group.of_peak > 1;
const star = group => isOver(group) ? "*" : "";
const ofPeak = group => (group.of_peak === 0 ? LITTLE : percent(group.of_peak)) + star(group);
