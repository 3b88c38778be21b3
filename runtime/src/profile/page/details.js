// What is known of the kernel that is selected, and of its op.

const details = $("details");
/** Whence the details were opened. */
let opener = null;
let isOpen = false;

/** Opens them; the focus goes there, and comes back to where it was. */
function openDetails(from = document.activeElement) {
  if (selection.group === null) return;
  tip.hide();
  opener = from;
  isOpen = true;
  showDetails();
  details.querySelector("h2").focus({ preventScroll: matchMedia("(min-width: 1440px)").matches });
}

function closeDetails() {
  const back = opener;
  isOpen = false;
  opener = null;
  if (selection.group === null) showDetails();
  else clear();
  back?.focus();
}

const TABS = ["Ops", "Source", "Assembly"];
let tab = TABS[0];

/** Buttons that select ops. */
const opLinks = all => {
  const some = all.slice(0, 60).map(op => {
    const button = el("button", { type: "button", className: "link" }, `op ${op}`);
    button.title = nameOfOp(op);
    button.onclick = () => { selectOp(op); openDetails(opener); };
    return button;
  });
  if (all.length > 60) some.push(`and ${all.length - 60} more`);
  return some.length ? some : ["none"];
};

/** Times of what several threads share are of all of them, rates are of all while they run. */
const together = ({ threads }) => threads > 1 ? "of all threads together; " : "";
const atOnce = ({ threads }) => threads > 1 ? `${plural(threads, "thread")} at once` : null;

function kernelNumbers(i) {
  const group = groups[i];
  return el("dl", { className: "numbers" }, ...pairs([
    ["Time", time(group.work_ns), `${together(group)}${percent(group.share)} of all ops; ±${percent(group.spread / 2)} between quartiles`],
    ["Calls", String(group.ops.length), `on up to ${plural(group.threads, "thread")}`],
    ["Of peak", group.of_peak === null ? "not known" : ofPeak(group),
      [group.bound && `nearest limit: ${group.bound}`, isOver(group) ? `* ${OVER}` : null].filter(Boolean).join("; ")],
    ["Arithmetic", group.flops === null ? "not stated" : `${giga(group.flops)}${NARROW}GFLOP/s`,
      [group.flops && group.bytes ? `${digits(group.flops / group.bytes)} FLOP a byte` : null, group.flops ? atOnce(group) : null]
        .filter(Boolean).join("; ")],
    ["Bandwidth", `${giga(group.bytes)}${NARROW}GB/s${star(group)}`, atOnce(group)],
  ]));
}

function opNumbers(i) {
  const op = ops[i];
  const { before, touches } = data.ops[i];
  const least = ns => ns === null ? "the least that it takes here is not known" : `takes ${op.threads > 1 ? "one thread " : ""}at least ${time(ns)} here`;
  return el("section", { className: "op", "aria-label": `Op ${i}` },
    el("h3", {}, `Op ${i}`, op.critical ? el("span", { className: "badge" }, "critical path") : null),
    el("dl", { className: "numbers" }, ...pairs([
      ["Time", time(op.work_ns.median), `${together(op)}${time(op.work_ns.lower)} to ${time(op.work_ns.upper)} in half of ${plural(op.runs, "run")}; all ${time(op.work_ns.min)} to ${time(op.work_ns.max)}`],
      ["Wave", String(op.wave), `on up to ${plural(op.threads, "thread")}`],
      ["Arithmetic", op.flops === null ? "not stated" : `${count(op.flops)}${op.flops < 1000 ? " " : ""}FLOP`, least(op.arithmetic_ns)],
      ["Bytes", bytes(op.bytes), least(op.memory_ns)],
    ])),
    el("h4", {}, "Touches"),
    el("ul", {}, ...touches.map(([buffer, offset, size, does]) => el("li", {},
      `${does} ${bufferName(buffer)}, ${buffers[buffer].shape}`,
      size === buffers[buffer].bytes ? ` (${bytes(size)})` : ` (${bytes(size)} of ${bytes(buffers[buffer].bytes)}, from byte ${offset})`))),
    el("h4", {}, "Waits for"),
    before.length
      ? el("ul", {}, ...before.map(([earlier, why]) => el("li", {}, ...opLinks([earlier]), ` ${why[0] ?? ""}`)))
      : el("p", {}, "nothing"),
    el("h4", {}, "What waits for it"), el("p", { className: "links" }, ...opLinks(after[i])));
}

/** Text with the numbers of its lines, which are not part of what is copied. */
function code(text, label) {
  const lines = text.replace(/\n$/, "").split("\n");
  const pre = el("pre", { tabIndex: 0, role: "region", "aria-label": label });
  pre.style.setProperty("--digits", String(String(lines.length).length));
  pre.append(...lines.map(line => el("span", { className: "line" }, `${line}\n`)));
  return pre;
}

function opTable(i) {
  const all = [...groups[i].ops].sort((a, b) => ops[b].work_ns.median - ops[a].work_ns.median);
  const rows = all.map(op => [opLinks([op])[0], time(ops[op].work_ns.median),
    `${time(ops[op].work_ns.lower)} to ${time(ops[op].work_ns.upper)}`, ops[op].wave, ops[op].critical ? "yes" : ""]);
  return table(["op", "median", "quartiles", "wave", "critical"], rows, {
    some: 50, caption: `Ops of ${names[i]}`,
    mark: (line, at) => line.classList.toggle("chosen", all[at] === selection.op),
  });
}

function tabPanel(i) {
  const kernel = groups[i].kernel;
  const texts = kernel === null ? null : data.texts[kernel];
  if (tab === "Ops") return opTable(i);
  const text = tab === "Source" ? texts?.source : texts?.assembly;
  if (!text) return el("p", { className: "hint" }, tab === "Source" ? "There is no source." : "There is no assembly.");
  return code(text, `${tab} of ${names[i]}`);
}

function tabs(i) {
  const panel = el("div", { role: "tabpanel", id: "panel" }, tabPanel(i));
  const buttons = TABS.map(name => {
    const button = el("button", {
      type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "panel",
    }, name);
    button.onclick = () => { tab = name; set(); };
    button.onkeydown = event => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!by) return;
      event.preventDefault();
      tab = TABS[(TABS.indexOf(name) + by + TABS.length) % TABS.length];
      set();
      $(`tab-${tab}`).focus();
    };
    return button;
  });
  const set = () => {
    mark();
    panel.replaceChildren(tabPanel(i));
  };
  const mark = () => {
    buttons.forEach(button => {
      const is = button.textContent === tab;
      button.setAttribute("aria-selected", String(is));
      button.tabIndex = is ? 0 : -1;
    });
    panel.setAttribute("aria-labelledby", `tab-${tab}`);
  };
  mark();
  return [el("div", { role: "tablist", "aria-label": "Of the kernel", className: "tabs" }, ...buttons), panel];
}

function showDetails() {
  const i = selection.group ?? 0;
  if (!groups.length) return;
  const chosen = selection.group !== null;
  details.classList.toggle("chosen", chosen);
  details.classList.toggle("open", isOpen && chosen);
  const toggle = el("button", { type: "button", className: "expand", "aria-expanded": String(isOpen) }, isOpen ? "Less" : "Details");
  toggle.onclick = () => {
    isOpen = !isOpen;
    showDetails();
    details.querySelector(".expand").focus();
  };
  const close = el("button", { type: "button", "aria-label": "Clear the selection" }, "Clear");
  close.onclick = closeDetails;
  const what = chosen ? (selection.op === null ? "Kernel" : `Op ${selection.op} of`) : "The costliest kernel";
  const took = selection.op === null ? groups[i].work_ns : ops[selection.op].work_ns.median;
  details.replaceChildren(
    el("div", { className: "head" },
      el("h2", { tabIndex: -1 }, el("small", {}, what), chip(i), el("span", {}, names[i])),
      el("span", { className: "took" }, time(took)), chosen ? toggle : null, chosen ? close : null),
    el("div", { className: "inside" }, selection.op === null ? null : opNumbers(selection.op),
      selection.op === null ? null : el("h3", {}, "Its kernel"), kernelNumbers(i), ...tabs(i)));
}

addEventListener("keydown", event => {
  if (event.key !== "Escape") return;
  tip.hide();
  if (details.contains(document.activeElement)) closeDetails();
});
onSelect(() => {
  if (selection.group === null) isOpen = false;
  showDetails();
});
showDetails();
