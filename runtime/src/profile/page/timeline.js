// One run: a track for each thread, on it what ran when.

$("timeline-h").textContent = `Timeline of one run (${time(trace.took)}; the median is ${time(report.run_ns.median)})`;

{
  const BAR = 26;
  const NAME = 16;
  const tall = () => clamp(Math.floor(480 / tracks.length), 9, NAME + BAR + 4);
  const hasNames = tall() >= 30;
  const top = phases.length > 1 ? 38 : 24;
  let waiting = null;
  repaints.push(() => { waiting = null; });

  const rowTop = thread => top + thread * tall();
  const barTop = thread => rowTop(thread) + (hasNames ? NAME : 1);
  const barHigh = hasNames ? BAR : tall() - 2;

  function drawGrid(ctx, view) {
    ctx.fillStyle = colours.band;
    for (const { x0, x1, i } of seenPhases(view)) if (i % 2) ctx.fillRect(x0, 18, x1 - x0, view.high);
    ctx.fillStyle = colours.line;
    for (const at of ticks(view.x.from, view.x.to, view.wide / 95, 1)) ctx.fillRect(Math.round(view.toX(at)), 16, 1, view.high);
  }

  const seenPhases = view => phases.length < 2 ? [] : phases
    .map(({ from, until }, i) => ({ i, x0: view.toX(from), x1: view.toX(until) }))
    .filter(({ x0, x1 }) => x1 >= 0 && x0 <= view.wide && x1 - x0 >= 3);

  /** Text that no line goes through. */
  function write(ctx, view, text, x, y, ground, colour = colours.muted) {
    ctx.fillStyle = ground;
    ctx.fillRect(x - 1, y - 7, text.length * view.letter + 2, 13);
    ctx.fillStyle = colour;
    ctx.fillText(text, x, y);
  }

  function drawTexts(ctx, view) {
    const marks = ticks(view.x.from, view.x.to, view.wide / 95, 1);
    const step = marks.length > 1 ? marks[1] - marks[0] : view.x.size;
    for (const at of marks) {
      const text = timeTick(at, step, view.x.to);
      const wide = text.length * view.letter;
      ctx.fillStyle = colours.muted;
      ctx.fillText(text, clamp(view.toX(at) - wide / 2, 2, view.wide - wide - 2), 9);
    }
    for (const { x0, x1, i } of seenPhases(view)) {
      const from = Math.max(x0, 0) + 3;
      const text = view.cut(x1 - x0 > 70 ? `phase ${i}` : String(i), x1 - from - 3);
      if (text) write(ctx, view, text, from, 27, i % 2 ? colours.band : colours.card);
    }
    if (hasNames) tracks.forEach((_, thread) => drawName(ctx, view, thread));
  }

  function drawName(ctx, view, thread) {
    const { busy, waits } = did[thread];
    const more = tracks.length > 1 ? `, waits ${time(waits)}` : "";
    const text = view.cut(`${threadName(thread)}: busy ${time(busy)}${more} in this run`, view.wide - 16);
    write(ctx, view, text, 8, barTop(thread) - 8, colours.card, colours.fg);
  }

  function drawSpan(ctx, view, span, x0, x1, y) {
    const { fill, text } = paint(groupOf[span.op]);
    const isDim = isBack(span.op);
    // What follows at once is told apart by a gap, where there is room.
    const wide = x1 - x0;
    const seen = wide > 4 ? wide - 1 : wide;
    if (isDim) {
      // No line of time is seen through a name.
      ctx.fillStyle = colours.card;
      ctx.fillRect(x0, y, seen, barHigh);
      ctx.globalAlpha = BACK;
    }
    ctx.fillStyle = fill;
    ctx.fillRect(x0, y, seen, barHigh);
    ctx.globalAlpha = 1;
    outline(ctx, x0, y, seen, barHigh);
    if (selection.op === span.op) {
      ctx.strokeStyle = colours.fg;
      ctx.lineWidth = 2;
      ctx.strokeRect(x0 - 1, y - 1, Math.max(wide + 1, 3), barHigh + 2);
    }
    if (wide > 10 && barHigh > 11) {
      const room = wide > 14 ? 4 : 2;
      const from = Math.max(x0, 0) + room;
      const label = view.nameIn(groupOf[span.op], Math.min(x1, view.wide) - from - room + 1);
      ctx.fillStyle = isDim ? colours.muted : text;
      if (label) ctx.fillText(label, from, y + barHigh / 2 + 1);
    }
  }

  /** Spans narrower than a pixel share one, which has the colour of the longest. */
  function drawTrack(ctx, view, track, y) {
    let i = firstThat(track, span => span.end > view.x.from);
    while (i < track.length && track[i].start < view.x.to) {
      const x0 = view.toX(track[i].start);
      let shown = track[i];
      const x1 = view.toX(shown.end);
      i += 1;
      if (x1 - x0 >= 1) {
        drawSpan(ctx, view, shown, x0, x1, y);
        continue;
      }
      const column = Math.floor(x0);
      while (i < track.length && view.toX(track[i].end) < column + 1) {
        const next = track[i];
        const [back, nextBack] = [isBack(shown.op), isBack(next.op)];
        if (back === nextBack ? next.end - next.start > shown.end - shown.start : back) shown = next;
        i += 1;
      }
      drawSpan(ctx, view, shown, column, column + 1, y);
    }
  }

  function drawWaits(ctx, view, all, y) {
    waiting ??= hatch(ctx);
    ctx.fillStyle = waiting;
    for (let i = firstThat(all, wait => wait.end > view.x.from); i < all.length && all[i].start < view.x.to; i++) {
      const [x0, x1] = [view.toX(all[i].start), view.toX(all[i].end)];
      if (x1 - x0 >= 1) ctx.fillRect(x0, y, x1 - x0, barHigh);
    }
  }

  function draw(ctx, view) {
    drawGrid(ctx, view);
    tracks.forEach((track, thread) => {
      const y = barTop(thread);
      ctx.fillStyle = colours.line;
      ctx.fillRect(view.toX(0), y + barHigh, view.toX(trace.took) - view.toX(0), 1);
      drawWaits(ctx, view, waits[thread], y);
      drawTrack(ctx, view, track, y);
    });
    drawTexts(ctx, view);
  }

  function lines({ op, part, parts, phase, thread, start, end }) {
    const where = `${threadName(thread)}${phases.length > 1 ? `, phase ${phase}` : ""}`;
    const head = `op ${op}: ${nameOfOp(op)}`;
    if (parts < 2) return [head, `${time(end - start)} in this run, from ${time(start)} on`, where, inMedian(op)];
    return [head, `this part, ${part + 1} of ${parts}: ${time(end - start)}, from ${time(start)} on`, where,
      `all parts together: ${time(took[op])} in this run, ${inMedian(op)}`];
  }

  /** What to say of a place where a thread has no op and waits for none. */
  function blank(thread, at) {
    if (at < 0 || at > trace.took) return null;
    const all = [...tracks[thread], ...waits[thread]];
    const from = Math.max(0, ...all.filter(one => one.end <= at).map(one => one.end));
    const until = Math.min(trace.took, ...all.filter(one => one.start >= at).map(one => one.start));
    return { lines: () => [`${threadName(thread)} is in no op`,
      `${time(until - from)}, from ${time(from)} on: the runtime, or other programs had the processor`] };
  }

  function pick(px, py) {
    const thread = tracks.findIndex((_, i) => py >= barTop(i) && py <= barTop(i) + barHigh);
    if (thread < 0) return null;
    const near = (all, by) => {
      const at = view.fromX(px);
      const slack = by / view.wide * view.x.size;
      const from = firstThat(all, one => one.end >= at - slack);
      const some = [];
      for (let i = from; i < all.length && all[i].start <= at + slack && some.length < 500; i++) some.push(all[i]);
      const far = one => Math.max(one.start - at, at - one.end, 0);
      return some.sort((a, b) => far(a) - far(b) || (b.end - b.start) - (a.end - a.start))[0];
    };
    const span = near(tracks[thread], 0) ?? near(tracks[thread], 3);
    if (span) return { op: span.op, lines: () => lines(span) };
    const wait = near(waits[thread], 0);
    return wait ? {
      lines: () => [`${threadName(thread)} waits`, `${time(wait.end - wait.start)}, until the others have ended phase ${wait.phase}`],
    } : blank(thread, view.fromX(px));
  }

  const byStart = [...spans].sort((a, b) => a.start - b.start);
  const firstOf = op => byStart.find(span => span.op === op);
  const inOrder = [...new Set(byStart.map(span => span.op))].map(op => ({ op }));
  const view = new View($("timeline"), {
    label: `Timeline of one run of ${time(trace.took)} on ${plural(tracks.length, "thread")}`,
    x: new Axis(0, Math.max(trace.took, 1), Math.min(20, Math.max(trace.took, 1))),
    height: () => top + tracks.length * tall() + 10,
    draw, pick,
    sequence: () => inOrder,
    linesOf: ({ op }) => lines(firstOf(op)),
    reveal: ({ op }) => {
      const first = firstOf(op);
      view.x.reveal(first.start, first.end);
      return [view.toX((first.start + first.end) / 2), barTop(first.thread) + barHigh / 2];
    },
    saySeen: () => view.x.isWhole ? `all ${time(trace.took)}`
      : `${time(view.x.from)} to ${time(view.x.to)} of ${time(trace.took)}`,
    legend: legend(
      tracks.length > 1 ? el("span", {}, el("span", { className: "chip gap" }), "waits for other threads") : null,
      el("span", {}, el("span", { className: "chip blank" }), "blank: in no op (the runtime, or other programs had the processor)"),
      phases.length > 1 ? el("span", {}, el("span", { className: "chip band" }), "phases; after each, threads wait for each other") : null),
    list: () => ({
      heads: ["from", "takes", "op", "kernel", "thread", "phase", "part"],
      rows: byStart.map(s => [time(s.start), time(s.end - s.start), s.op, nameOfOp(s.op), threadName(s.thread),
        s.phase, s.parts > 1 ? `${s.part + 1} of ${s.parts}` : ""]),
    }),
  });
}
