// One run: a track for each thread, on it what ran when.

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

  function ruler(ctx, view) {
    const marks = ticks(view.x.from, view.x.to, view.wide / 95, 1);
    const step = marks.length > 1 ? marks[1] - marks[0] : view.x.size;
    for (const at of marks) {
      const x = Math.round(view.toX(at)) + 0.5;
      ctx.fillStyle = colours.line;
      ctx.fillRect(x - 0.5, 16, 1, view.high);
      const text = timeTick(at, step, view.x.to);
      const wide = text.length * view.letter;
      ctx.fillStyle = colours.muted;
      ctx.fillText(text, clamp(x - wide / 2, 2, view.wide - wide - 2), 9);
    }
  }

  function drawPhases(ctx, view) {
    if (phases.length < 2) return;
    phases.forEach(({ from, until }, i) => {
      const [x0, x1] = [view.toX(from), view.toX(until)];
      if (x1 < 0 || x0 > view.wide || x1 - x0 < 3) return;
      if (i % 2) {
        ctx.fillStyle = colours.band;
        ctx.fillRect(x0, 18, x1 - x0, view.high);
      }
      const text = view.cut(x1 - x0 > 70 ? `phase ${i}` : String(i), x1 - Math.max(x0, 0) - 6);
      ctx.fillStyle = colours.muted;
      if (text) ctx.fillText(text, Math.max(x0, 0) + 3, 27);
    });
  }

  function drawSpan(ctx, view, span, x0, x1, y) {
    const { fill, text } = paint(groupOf[span.op]);
    ctx.globalAlpha = isBack(span.op) ? 0.3 : 1;
    ctx.fillStyle = fill;
    // What follows at once is told apart by a gap, where there is room.
    const wide = x1 - x0;
    ctx.fillRect(x0, y, wide > 4 ? wide - 1 : wide, barHigh);
    if (selection.op === span.op) {
      ctx.strokeStyle = colours.fg;
      ctx.lineWidth = 2;
      ctx.strokeRect(x0 - 1, y - 1, Math.max(wide + 1, 3), barHigh + 2);
    }
    if (wide > 14 && barHigh > 11) {
      const from = Math.max(x0, 0) + 4;
      const label = view.nameIn(groupOf[span.op], Math.min(x1, view.wide) - from - 4);
      ctx.fillStyle = text;
      if (label) ctx.fillText(label, from, y + barHigh / 2 + 1);
    }
    ctx.globalAlpha = 1;
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
    drawPhases(ctx, view);
    ruler(ctx, view);
    tracks.forEach((track, thread) => {
      const y = barTop(thread);
      if (hasNames) {
        const { busy_ns: busy, waits_ns: idle } = report.threads[thread] ?? { busy_ns: 0, waits_ns: 0 };
        const more = tracks.length > 1 ? `, waits ${time(idle)}` : "";
        ctx.fillStyle = colours.fg;
        ctx.fillText(view.cut(`${threadName(thread)}: busy ${time(busy)}${more} a run`, view.wide - 16), 8, y - 8);
      }
      ctx.fillStyle = colours.line;
      ctx.fillRect(view.toX(0), y + barHigh, view.toX(trace.took) - view.toX(0), 1);
      drawWaits(ctx, view, waits[thread], y);
      drawTrack(ctx, view, track, y);
    });
  }

  const lines = span => () => opLines(span.op,
    `${time(span.end - span.start)} in this run, from ${time(span.start)} on`,
    `${threadName(span.thread)}${phases.length > 1 ? `, phase ${span.phase}` : ""}`
      + (span.parts > 1 ? `, part ${span.part + 1} of ${span.parts}` : ""));

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
    if (span) return { op: span.op, lines: lines(span) };
    const wait = near(waits[thread], 0);
    return wait ? {
      lines: () => [`${threadName(thread)} waits`, `${time(wait.end - wait.start)}, until the others have ended phase ${wait.phase}`],
    } : null;
  }

  const byStart = [...spans].sort((a, b) => a.start - b.start);
  const inOrder = [...new Set(byStart.map(span => span.op))].map(op => ({ op }));
  const view = new View($("timeline"), {
    label: `Timeline of one run of ${time(trace.took)} on ${plural(tracks.length, "thread")}`,
    x: new Axis(0, Math.max(trace.took, 1), Math.min(20, Math.max(trace.took, 1))),
    height: () => top + tracks.length * tall() + 10,
    draw, pick,
    sequence: () => inOrder,
    reveal: ({ op }) => {
      const first = byStart.find(span => span.op === op);
      view.x.reveal(first.start, first.end);
      return [view.toX((first.start + first.end) / 2), barTop(first.thread) + barHigh / 2];
    },
    saySeen: () => view.x.isWhole ? `all ${time(trace.took)}`
      : `${time(view.x.from)} to ${time(view.x.to)} of ${time(trace.took)}`,
    legend: legend(tracks.length > 1 ? el("span", {}, el("span", { className: "chip gap" }), "waits for other threads") : null),
    list: () => ({
      heads: ["from", "takes", "op", "kernel", "thread", "phase", "part"],
      rows: byStart.map(s => [time(s.start), time(s.end - s.start), s.op, nameOfOp(s.op), threadName(s.thread),
        s.phase, s.parts > 1 ? `${s.part + 1} of ${s.parts}` : ""]),
    }),
  });
}
