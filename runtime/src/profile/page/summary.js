// What a run takes, and the kernels that cost most of it.

{
  const { run_ns: run, totals, machine, threads } = report;
  $("name").textContent = report.plan;
  document.title = `${report.plan}: svod profile`;
  $("about").textContent =
    `${plural(ops.length, "op")}, ${plural(report.runs, "run")} on ${plural(Math.max(threads.length, 1), "thread")}`
    + (machine ? `, ${machine.cpu}` : "");

  const most = groups[0]?.share || 1;
  $("costliest").append(...groups.slice(0, 5).map((group, i) => {
    const bar = el("span", { className: "bar", "aria-hidden": "true" });
    bar.style.width = `${100 * group.share / most}%`;
    bar.style.background = PALETTE[i].fill;
    const said = [
      plural(group.ops.length, "call"),
      group.of_peak === null ? null : `${percent(group.of_peak)} of peak`,
      group.bound && `bound by ${group.bound}`,
    ].filter(Boolean).join(", ");
    const button = el("button", { type: "button" }, chip(i), el("span", { className: "who" }, names[i]),
      el("span", { className: "much" }, `${percent(group.share)}  ${time(group.work_ns)}`),
      el("span", { className: "track", "aria-hidden": "true" }, bar), el("small", {}, said));
    button.onclick = () => { select(i); openDetails(button); };
    return el("li", {}, button);
  }));

  const rates = machine && ratesFor(machine, Math.max(threads.length, 1));
  const { memory } = data;
  const roles = memory.roles.filter(([role, number]) => number && role !== "temp");
  const constants = roles.find(([role]) => role === "constant")?.[2] ?? 0;
  $("totals").append(...pairs([
    ["A run", time(run.median), `median; ${time(run.lower)} to ${time(run.upper)} in half of ${plural(report.runs, "run")}`],
    ["Work", time(totals.work_ns), `in ops, of all threads; ${plural(totals.launches, "launch")}`],
    ["Critical path", time(totals.critical_path_ns), "the least that a run takes with ops that are not split"],
    totals.overhead_ns === null ? null
      : ["Runtime", `${digits(totals.overhead_ns)}${NARROW}ns`, `for each launch; ${time(totals.overhead_ns * totals.launches)} a run`],
    threads.length > 1 ? ["Waits", time(totals.waits_ns), "of all threads, for each other"] : null,
    threads.length > 1
      ? ["Balance", percent(totals.balance), `busy for ${threads.map(t => time(t.busy_ns)).join(" and ")}`] : null,
    rates ? ["Peak arithmetic", `${giga(rates.f32_flops)}${NARROW}GFLOP/s`,
      `of f32, ${giga(rates.f64_flops)} of f64; ${plural(rates.threads, "thread")}`] : null,
    rates ? ["Peak reads", `${giga(rates.bandwidth.at(-1).read)}${NARROW}GB/s`,
      `from memory; ${plateaus(rates).slice(0, -1).map(l => `${giga(l.read)} of ${bytes(l.size)}`).join(", ")}`] : null,
    ["Memory", bytes(memory.instance + constants),
      [...roles.map(([role, , size]) => `${role}s ${bytes(size)}`), `arena ${bytes(memory.arena)}`].join(", ")],
  ]));
}
