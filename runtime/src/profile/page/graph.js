// The plan: ops by wave, and what each waits for.

{
  const waves = [];
  ops.forEach(op => (waves[op.wave] ??= []).push(op.op));
  const before = op => data.ops[op].before.map(([earlier]) => earlier);

  /** Where each op lies across its wave: near what it waits for. */
  const slot = new Float64Array(ops.length);
  for (const wave of waves) {
    const wanted = new Map(wave.map(op => {
      const all = before(op);
      return [op, all.length ? all.reduce((sum, earlier) => sum + slot[earlier], 0) / all.length : 0];
    }));
    wave.sort((a, b) => wanted.get(a) - wanted.get(b) || a - b);
    wave.forEach((op, i) => { slot[op] = i - (wave.length - 1) / 2; });
  }
  const widest = Math.max(1, ...waves.map(wave => wave.length));
  const edges = ops.flatMap(({ op }) => before(op).map(earlier => [earlier, op]));
  const critical = ops.filter(op => op.critical).map(op => op.op).sort((a, b) => ops[a].wave - ops[b].wave);
  const criticalEdges = critical.slice(1).map((op, i) => [critical[i], op]);

  /** Where an edge passes the waves that lie between its ends: near its middle, through no box. */
  function laneOf([from, to]) {
    const middle = (slot[from] + slot[to]) / 2;
    const isFree = at => {
      for (let wave = ops[from].wave + 1; wave < ops[to].wave; wave++) {
        const half = (waves[wave].length - 1) / 2;
        if (Math.abs(at) < half + 0.45 && Math.abs(at + half - Math.round(at + half)) < 0.4) return false;
      }
      return true;
    };
    for (let by = 0; by < widest + 1; by += 0.1) {
      if (isFree(middle + by)) return middle + by;
      if (isFree(middle - by)) return middle - by;
    }
    return middle;
  }
  const isFar = ([from, to]) => ops[to].wave - ops[from].wave > 1;
  const lanes = new Map();
  const lane = edge => {
    const key = edge[0] * ops.length + edge[1];
    if (!lanes.has(key)) lanes.set(key, laneOf(edge));
    return lanes.get(key);
  };

  /** More edges than this are straight lines, and left out where the room between waves would be all grey. */
  const MANY = 1500;
  let hidesEdges = false;
  const high = clamp((widest + 3.2) * 34, 150, 460);

  function sizes(view) {
    const [sx, sy] = [view.toX(1) - view.toX(0), view.toY(1) - view.toY(0)];
    return { sx, sy, halfX: clamp(sx * 0.36, 0.75, 90), halfY: clamp(sy * 0.32, 0.75, 12) };
  }

  function trackEdge(ctx, view, { sx, halfX }, edge, straight) {
    const [from, to] = edge;
    const [x0, x1] = [view.toX(ops[from].wave) + halfX, view.toX(ops[to].wave) - halfX];
    const [y0, y1] = [view.toY(slot[from]), view.toY(slot[to])];
    const curve = (xa, ya, xb, yb) => ctx.bezierCurveTo((xa + xb) / 2, ya, (xa + xb) / 2, yb, xb, yb);
    ctx.moveTo(x0, y0);
    if (straight) ctx.lineTo(x1, y1);
    else if (!isFar(edge)) curve(x0, y0, x1, y1);
    else {
      const gap = sx - 2 * halfX;
      const between = view.toY(lane(edge));
      curve(x0, y0, x0 + gap, between);
      ctx.lineTo(x1 - gap, between);
      curve(x1 - gap, between, x1, y1);
    }
  }

  /** Where a line ends at what waits, as long as there is room to see it. */
  function drawHeads(ctx, view, { sx, halfX }, some, colour) {
    const long = Math.min((sx - 2 * halfX) * 0.4, 7);
    if (long < 3) return;
    ctx.fillStyle = colour;
    ctx.beginPath();
    for (const [, to] of some) {
      const [x, y] = [view.toX(ops[to].wave) - halfX, view.toY(slot[to])];
      ctx.moveTo(x, y);
      ctx.lineTo(x - long, y - long * 0.55);
      ctx.lineTo(x - long, y + long * 0.55);
    }
    ctx.fill();
  }

  function stroke(ctx, view, size, some, style, straight = false) {
    Object.assign(ctx, style);
    ctx.setLineDash(style.dash ?? []);
    ctx.beginPath();
    for (const edge of some) trackEdge(ctx, view, size, edge, straight);
    ctx.stroke();
    ctx.setLineDash([]);
    if (!straight) drawHeads(ctx, view, size, some, style.strokeStyle);
    ctx.globalAlpha = 1;
  }

  function draw(ctx, view) {
    const size = sizes(view);
    const isSeen = ([from, to]) => ops[to].wave >= view.x.from && ops[from].wave <= view.x.to;
    const some = edges.filter(isSeen);
    const { op } = selection;
    const back = op === null ? 0.8 : 0.3;
    hidesEdges = some.length > MANY && size.sx - 2 * size.halfX < 5;
    if (!hidesEdges)
      stroke(ctx, view, size, some, { strokeStyle: colours.muted, lineWidth: 1, globalAlpha: back }, some.length > MANY);
    // Under the lines of what is selected, the path's would fill their gaps.
    const path = criticalEdges.filter(edge => isSeen(edge) && !edge.includes(op));
    stroke(ctx, view, size, path, { strokeStyle: colours.fg, lineWidth: 3, globalAlpha: op === null ? 1 : 0.5 });
    const related = new Set();
    if (op !== null) {
      const [from, to] = [before(op).map(e => [e, op]), after[op].map(l => [op, l])];
      stroke(ctx, view, size, from, { strokeStyle: colours.accent, lineWidth: 2.5, dash: [6, 4] });
      stroke(ctx, view, size, to, { strokeStyle: colours.accent, lineWidth: 2.5 });
      [...from, ...to].flat().forEach(op => related.add(op));
    }
    const [first, last] = [Math.max(0, Math.floor(view.x.from)), Math.min(waves.length - 1, Math.ceil(view.x.to))];
    for (let wave = first; wave <= last; wave++) for (const op of waves[wave]) drawNode(ctx, view, size, op, related);
    drawRuler(ctx, view, size, first, last);
  }

  function drawNode(ctx, view, { halfX, halfY }, op, related) {
    const [x, y] = [view.toX(ops[op].wave), view.toY(slot[op])];
    if (y < -halfY || y > view.high + halfY) return;
    const group = groupOf[op];
    const { fill, text } = paint(group);
    const [left, top, wide, tall] = [x - halfX, y - halfY, 2 * halfX, 2 * halfY];
    const isDim = isBack(op) && !related.has(op);
    if (isDim) {
      // No edge is seen through a name.
      ctx.fillStyle = colours.card;
      if (wide > 8) ctx.fillRect(left, top, wide, tall);
      ctx.globalAlpha = BACK;
    }
    const isSmall = halfX < 4 || halfY < 4;
    const isChosen = selection.op === op || related.has(op);
    ctx.fillStyle = fill;
    ctx.beginPath();
    if (isSmall) ctx.rect(left, top, wide, tall);
    else ctx.roundRect(left, top, wide, tall, ops[op].critical ? 0 : Math.min(halfX, halfY, 8));
    ctx.fill();
    ctx.globalAlpha = 1;
    // The frame of a small one would leave nothing of its colour: there, the line along the path is enough.
    if (isChosen || !isSmall) {
      const isFramed = isChosen || ops[op].critical;
      ctx.strokeStyle = isChosen ? colours.accent : isFramed && !isDim ? colours.fg : colours.muted;
      ctx.lineWidth = selection.op === op ? clamp(halfX * 0.5, 1, 4) : isFramed ? clamp(halfX * 0.4, 0.8, 2.5) : 1;
      ctx.stroke();
    }
    if (wide > 8 && tall > 11) {
      const label = view.nameIn(group, wide - 6) || (group < COLOURED ? String(group + 1) : "");
      ctx.fillStyle = isDim ? colours.muted : text;
      ctx.fillText(label, x - label.length * view.letter / 2, y + 1);
    }
  }

  function drawRuler(ctx, view, { sx }, first, last) {
    ctx.fillStyle = colours.card;
    ctx.globalAlpha = 0.85;
    ctx.fillRect(0, 0, view.wide, 17);
    ctx.globalAlpha = 1;
    ctx.fillStyle = colours.muted;
    const label = "wave";
    ctx.fillText(label, 4, 9);
    const every = ticks(0, waves.length, view.wide / 60 * waves.length / view.x.size, 1);
    const step = every.length > 1 ? every[1] : 1;
    for (let wave = Math.ceil(first / step) * step; wave <= last; wave += step) {
      const wide = String(wave).length * view.letter;
      const x = Math.min(view.toX(wave) - wide / 2, view.wide - wide - 2);
      if (x > 4 + (label.length + 1) * view.letter) ctx.fillText(String(wave), x, 9);
    }
  }

  function pick(px, py) {
    const { sx, sy, halfX, halfY } = sizes(view);
    const wave = Math.round(view.fromX(px));
    if (!waves[wave] || Math.abs(px - view.toX(wave)) > Math.max(halfX, Math.min(4, sx / 2))) return null;
    const at = view.fromY(py);
    const op = waves[wave].reduce((best, op) => Math.abs(slot[op] - at) < Math.abs(slot[best] - at) ? op : best);
    if (Math.abs(py - view.toY(slot[op])) > Math.max(halfY, Math.min(4, sy / 2))) return null;
    return { op, lines: () => lines(op) };
  }

  const lines = op => [`op ${op}: ${nameOfOp(op)}`,
    `wave ${ops[op].wave}${ops[op].critical ? ", on the critical path" : ""}`,
    `waits for ${plural(before(op).length, "op")}; ${after[op].length} ${after[op].length === 1 ? "waits" : "wait"} for it`,
    inMedian(op)];

  const least = Math.min(waves.length + 1, 2.5);
  const view = new View($("graph"), {
    label: `${plural(ops.length, "op")} in ${plural(waves.length, "wave")}, with ${plural(edges.length, "edge")}`,
    x: new Axis(-0.6, waves.length - 0.4, least),
    y: new Axis(-widest / 2 - 1.6, widest / 2 + 1.6, Math.min(widest + 3.2, high / 34)),
    box: { left: 4, right: 4, top: 14, bottom: 4 },
    height: () => high,
    hint: "A box is an op, a column a wave: ops that wait for none of the others in it. A line leads to an op, at its left, from "
      + "what it waits for.",
    draw, pick,
    sequence: () => waves.flat().map(op => ({ op })),
    linesOf: ({ op }) => lines(op),
    reveal: ({ op }) => {
      view.x.reveal(ops[op].wave - 0.5, ops[op].wave + 0.5);
      view.y.reveal(slot[op] - 0.5, slot[op] + 0.5);
      return [view.toX(ops[op].wave), view.toY(slot[op])];
    },
    saySeen: () => (view.x.isWhole ? `all ${plural(waves.length, "wave")}`
      : `waves ${Math.max(0, Math.ceil(view.x.from))} to ${Math.min(waves.length - 1, Math.floor(view.x.to))} of ${waves.length}`)
      + (hidesEdges ? "; zoom in to see all edges" : ""),
    legend: legend(
      el("span", {}, el("span", { className: "dashes thin" }), "an op waits for another"),
      el("span", {}, el("span", { className: "chip critical" }), el("span", { className: "dashes thick" }),
        `critical path: thick line and, where there is room, framed boxes, ${time(report.totals.critical_path_ns)}`),
      el("span", {}, el("span", { className: "dashes" }), "what the selected op waits for"),
      el("span", {}, el("span", { className: "dashes whole" }), "what waits for it")),
    list: () => ({
      heads: ["op", "kernel", "wave", "critical", "waits for"],
      rows: ops.map(o => [o.op, names[groupOf[o.op]], o.wave, o.critical ? "yes" : "", before(o.op).join(", ")]),
    }),
  });
}
