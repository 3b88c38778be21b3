// What a run takes, and the kernels that cost most of it.

{
  const { run_ns: run, totals, machine, threads } = report;
  const used = Math.max(threads.length, 1);
  const pool = Math.max(report.pool_threads, used);
  $("name").textContent = report.plan;
  document.title = `${report.plan}: svod profile`;
  $("about").textContent =
    `${plural(ops.length, "op")}, ${plural(report.runs, "run")} on ${used < pool ? `${used} of ` : ""}${plural(pool, "thread")}`
    + (machine ? `, ${machine.cpu}` : "");
  if (used < pool)
    $("about").append(el("small", {}, `Runs could have had ${plural(pool, "thread")}, but their schedule uses ${used}: `
      + "more are used where runs were clearly faster with them when the schedule was learned."));

  const most = groups[0]?.share || 1;
  $("costliest").append(...groups.slice(0, 5).map((group, i) => {
    const bar = el("span", { className: "bar", "aria-hidden": "true" });
    bar.style.width = `${100 * group.share / most}%`;
    bar.style.background = PALETTE[i].fill;
    const said = [
      plural(group.ops.length, "call"),
      group.of_peak === null ? null : `${ofPeak(group)} of peak`,
      group.bound && `nearest limit: ${group.bound}`,
    ].filter(Boolean).join(", ");
    const button = el("button", { type: "button" }, chip(i), el("span", { className: "who" }, names[i]),
      el("span", { className: "much" }, `${percent(group.share)}  ${time(group.work_ns)}`),
      el("span", { className: "track", "aria-hidden": "true" }, bar), el("small", {}, said));
    button.onclick = () => { select(i); openDetails(button); };
    return el("li", {}, button);
  }));
  const others = groups.slice(5);
  if (others.length)
    $("costliest").append(el("li", { className: "others" }, el("a", { href: "#kernels" }, plural(others.length, "other kernel")),
      `, ${percent(others.reduce((sum, group) => sum + group.share, 0))}`));

  const rates = machine && ratesFor(machine, used);
  const isSplit = ops.some(op => op.critical && op.threads > 1);
  const { memory } = data;
  const roles = memory.roles.filter(([role, number]) => number && role !== "temp");
  const constants = roles.find(([role]) => role === "constant")?.[2] ?? 0;

  /** What the processor counted, or why it did not. */
  function counted() {
    const { counts } = report;
    if (!counts) return data.not_counted && ["Counted", "nothing", data.not_counted];
    const misses = (what, n) => n === null ? [] : [`${count(n)} ${what} misses`];
    return ["Counted", `${count(counts.instructions)} instructions`, [
      `${digits(counts.instructions / Math.max(counts.cycles, 1))} a cycle`, `${count(counts.cycles)} cycles`,
      ...misses("cache", counts.cache_misses), ...misses("branch", counts.branch_misses), "in a run, in the mean",
    ].join(", ")];
  }

  $("totals").append(...pairs([
    ["A run", time(run.median), `median; ${time(run.lower)} to ${time(run.upper)} in half of ${plural(report.runs, "run")}`],
    ["Work", time(totals.work_ns), `in ops, of all threads, the sum of their medians; ${plural(totals.launches, "launch")}`],
    ["Critical path", time(totals.critical_path_ns), "what ops take that each wait for the one before"
      + (isSplit ? "; some are split here, so a run can take less" : ": a run takes no less")],
    totals.overhead_ns === null ? null
      : ["Launch overhead", `${digits(totals.overhead_ns)}${NARROW}ns`, `a launch; ${time(totals.overhead_ns * totals.launches)} a run`],
    threads.length > 1 ? ["Waits", time(totals.waits_ns), "of all threads, for each other, in the mean"] : null,
    threads.length > 1
      ? ["Balance", percent(totals.balance), `busy, in the mean, for ${threads.map(t => time(t.busy_ns)).join(" and ")}`] : null,
    threads.length
      ? ["In no op", time(threads[0].blank_ns), "the caller, in the mean, and it waits for none: the runtime, or other programs"] : null,
    rates ? ["Peak arithmetic", `${giga(rates.f32_flops)}${NARROW}GFLOP/s`,
      `f32; f64: ${giga(rates.f64_flops)}${NARROW}GFLOP/s; ${plural(rates.threads, "thread")}`] : null,
    rates ? ["Peak reads", `${giga(rates.bandwidth.at(-1).read)}${NARROW}GB/s`,
      `from memory; ${plateaus(rates).slice(0, -1)
        .map((l, i) => `${giga(l.read)}${NARROW}GB/s from ${bytes(l.size)}${i ? "" : " (cache)"}`).join(", ")}`] : null,
    ["Memory", bytes(memory.instance + constants),
      [...roles.map(([role, , size]) => `${role}s ${bytes(size)}`), `arena ${bytes(memory.arena)}`].join(", ")],
    counted(),
  ]));
}
