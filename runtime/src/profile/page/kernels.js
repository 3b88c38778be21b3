// All kernels in a table, sorted and filtered.

{
  const section = $("kernels");
  const number = n => n === null ? "" : giga(n);
  /** Heading, what sorts, what stands there, and what it means. */
  const COLUMNS = [
    ["kernel", (g, i) => names[i], null, "The kernel's entry, copy, fill, or a host function"],
    ["calls", g => g.ops.length, g => g.ops.length, "Ops that launch it, in a run"],
    ["time", g => g.work_ns, g => time(g.work_ns), "Of all its ops in a run, on all threads: the sum of medians"],
    ["share", g => g.share, g => percent(g.share), "Of the time of all ops"],
    ["of peak", g => g.of_peak ?? -1, g => g.of_peak === null ? "" : ofPeak(g), "The least time that the machine could do it in, over the time it took"],
    ["limit", g => g.bound ?? "", g => g.bound ?? "", "The nearest: what takes longest of what it cannot do without"],
    ["GFLOP/s", g => g.flops ?? -1, g => number(g.flops), "Floating-point operations a second, while all its threads run it"],
    ["GB/s", g => g.bytes, g => number(g.bytes) + star(g), "Bytes a second, while all its threads run it"],
    ["threads", g => g.threads, g => g.threads, "The most that had a part of one of its ops"],
    ["spread", g => g.spread, g => `±${percent(g.spread / 2)}`, "Half of how far the quartiles are apart, over the median"],
  ];
  const SOME = 200;

  let sorted = 2;
  let down = true;
  let all = false;
  const filter = el("input", { type: "search", id: "filter", autocomplete: "off", spellcheck: false });
  const found = el("output", { className: "seen" });
  const body = el("tbody", { role: "rowgroup" });
  const more = el("button", { type: "button", className: "more" });
  const heads = COLUMNS.map(([name, , , means], i) => {
    const button = el("button", { type: "button", title: means }, name);
    button.onclick = () => {
      down = sorted === i ? !down : i !== 0 && i !== 5;
      sorted = i;
      fill();
    };
    return el("th", { scope: "col", role: "columnheader" }, button);
  });

  const most = groups[0]?.share || 1;
  const rows = groups.map((group, i) => {
    const open = el("button", { type: "button", className: "name" }, chip(i), el("span", {}, names[i]));
    const cells = COLUMNS.slice(1).map(([head, , shown]) => el("td", { role: "cell", "data-of": head }, shown(group, i)));
    const bar = el("span", { className: "bar", "aria-hidden": "true" });
    bar.style.width = `${100 * group.share / most}%`;
    // A shorter one would be a speck.
    if (group.share > 0.08 * most) cells[2].append(bar);
    cells[2].className = "share";
    const row = el("tr", { role: "row" }, el("th", { scope: "row", role: "rowheader" }, open), ...cells);
    row.onclick = event => {
      if (getSelection().toString() && event.detail) return;
      select(i);
      openDetails(open);
    };
    return row;
  });

  function fill() {
    const wanted = filter.value.trim().toLowerCase();
    const is = i => !wanted || names[i].toLowerCase().includes(wanted) || (groups[i].bound ?? "").includes(wanted);
    const key = COLUMNS[sorted][1];
    const order = groups.map((_, i) => i).filter(is).sort((a, b) => {
      const [x, y] = [key(groups[a], a), key(groups[b], b)];
      return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1) || a - b;
    });
    const shown = all ? order : order.slice(0, SOME);
    body.replaceChildren(...shown.map(i => rows[i]));
    more.hidden = shown.length === order.length;
    more.textContent = `Show all ${order.length}`;
    found.textContent = wanted ? `${order.length} of ${plural(groups.length, "kernel")}` : plural(groups.length, "kernel");
    heads.forEach((head, i) => {
      head.setAttribute("aria-sort", i !== sorted ? "none" : down ? "descending" : "ascending");
    });
  }
  filter.oninput = fill;
  more.onclick = () => { all = true; fill(); };
  section.append(
    el("div", { className: "tools" }, el("label", { for: "filter" }, "Filter by name or limit"), filter, found),
    el("table", { className: "kernels", role: "table", "aria-labelledby": "kernels-h" },
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...heads)), body),
    more,
    ...(groups.some(isOver) ? [el("p", { className: "hint" }, `* ${OVER}.`)] : []),
    el("p", { className: "hint" }, ...COLUMNS.slice(1).flatMap(([name, , , means]) =>
      [el("b", {}, name), `: ${means[0].toLowerCase()}${means.slice(1)}. `]),
    ...(names.some((name, i) => name !== groups[i].name)
      ? [el("b", {}, "(n)"), ": the kernel's number, where several share a name."] : [])));
  onSelect(() => rows.forEach((row, i) => row.classList.toggle("chosen", i === selection.group)));
  fill();
}
