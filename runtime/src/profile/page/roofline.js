// How near kernels are to what arithmetic and moving bytes allow.

{
  const section = $("roofline");
  const { machine } = report;
  const known = groups.flatMap((group, i) => group.flops > 0 && group.bytes > 0
    ? [{ group: i, x: Math.log10(group.flops / group.bytes), y: Math.log10(group.flops) }] : []);
  const without = groups.flatMap((group, i) => group.flops > 0 && group.bytes > 0 ? [] : [i]);

  let rates = machine && (ratesFor(machine, Math.max(report.threads.length, 1)) ?? machine.rates[0]);
  const LETTERS = "ABCDEFGH";
  const roofs = el("ul", { className: "roofs" });

  function listRoofs() {
    if (!rates) return;
    const levels = plateaus(rates).map((level, i, all) => el("li", {}, el("b", {}, LETTERS[i]), ` ${giga(level.read)}${NARROW}GB/s read, data `
      + (i + 1 < all.length ? `of up to ${bytes(level.size)}` : "that is larger")));
    roofs.replaceChildren(...levels,
      el("li", {}, el("b", {}, "f32"), ` ${giga(rates.f32_flops)}${NARROW}GFLOP/s`),
      el("li", {}, el("b", {}, "f64"), ` ${giga(rates.f64_flops)}${NARROW}GFLOP/s`));
  }

  /** What takes less than this of the time sets no scale: it stands at the edge. */
  const isSmall = ({ group }) => groups[group].share < 0.001;
  /** Whole decades that hold the dots, with room for their size, and the ridges. */
  function scales() {
    const large = known.filter(dot => !isSmall(dot));
    const some = large.length ? large : known;
    const xs = some.map(dot => dot.x);
    const ys = some.map(dot => dot.y);
    if (rates) {
      const most = Math.max(rates.f32_flops, rates.f64_flops);
      xs.push(...plateaus(rates).map(level => Math.log10(most / level.read) + 0.3));
      ys.push(Math.log10(most) + 0.15);
    }
    const [x0, x1] = [Math.floor(Math.min(...xs, 0) - 0.05), Math.ceil(Math.max(...xs, 0.95) + 0.05)];
    const [y0, y1] = [Math.floor(Math.min(...ys) - 0.1), Math.ceil(Math.max(...ys) + 0.1)];
    return { x: [x0, x1, 0.5], y: [-Math.max(y1, y0 + 1), -y0, 0.5] };
  }
  const BOX = { left: 58, right: 16, top: 14, bottom: 40 };
  const toX = at => view.toX(at);
  /** Upwards is more. */
  const toY = at => view.toY(-at);

  /** The dots as they are drawn: those that are larger below, so that none hides another, and what is selected on top. */
  function dots() {
    const all = known.map(({ group, x, y }) => {
      const [atX, atY] = [clamp(x, view.x.min, view.x.max), clamp(y, -view.y.max, -view.y.min)];
      const { share } = groups[group];
      return { group, x: toX(atX), y: toY(atY), r: Math.max(group < COLOURED ? 7 : 4, 24 * Math.sqrt(share)), isAtEdge: atX !== x || atY !== y };
    });
    const isChosen = dot => dot.group === selection.group;
    return all.sort((a, b) => isChosen(a) - isChosen(b) || b.r - a.r || b.group - a.group);
  }

  function drawGrid(ctx) {
    const [right, base] = [view.wide - BOX.right, view.high - BOX.bottom];
    const write = (text, x, y) => { ctx.fillStyle = colours.muted; ctx.fillText(text, x, y); };
    for (const at of logTicks(view.x.from, view.x.to)) {
      ctx.fillStyle = colours.line;
      ctx.fillRect(Math.round(toX(at)), BOX.top, 1, base - BOX.top);
      const text = logTick(at);
      const wide = text.length * view.letter;
      write(text, clamp(toX(at) - wide / 2, 0, view.wide - 4 - wide), base + 12);
    }
    for (const at of logTicks(-view.y.to, -view.y.from)) {
      ctx.fillStyle = colours.line;
      ctx.fillRect(BOX.left, Math.round(toY(at)), right - BOX.left, 1);
      const text = logTick(at - 9);
      write(text, BOX.left - 6 - text.length * view.letter, toY(at));
    }
    const below = "FLOP a byte";
    write(below, (view.wide + BOX.left - below.length * view.letter) / 2, view.high - 10);
    ctx.save();
    ctx.translate(9, (view.high - 26) / 2 + 26);
    ctx.rotate(-Math.PI / 2);
    write("GFLOP/s", 0, 0);
    ctx.restore();
  }

  /** A roof: up a slope, where bytes are read at this rate, and level from where arithmetic takes longer. */
  const slope = (read, top) => [view.x.from, read + view.x.from, top - read, top];
  const level = (from, top) => [from, top, view.x.to, top];

  /** The roofs, as lines in the picture with a name that stands on them. */
  function roofLines() {
    if (!rates) return [];
    const top = Math.log10(Math.max(rates.f32_flops, rates.f64_flops));
    const dashes = [[], [8, 3], [4, 3], [1.5, 3]];
    const slopes = plateaus(rates).map(({ read }, i) => {
      const rate = Math.log10(read);
      const [from, to] = [Math.max(view.x.from, -view.y.to - rate), Math.min(view.x.to, top - rate, -view.y.from - rate)];
      // Each letter a way along its line, so that those of lines close by stand apart.
      const at = from + (to - from) * (0.9 - 0.13 * i);
      return { line: slope(rate, top), name: LETTERS[i], at: to > from ? [toX(at), toY(rate + at)] : null, dash: dashes[i % 4], width: 1.5 };
    });
    const ridge = top - Math.log10(Math.max(...plateaus(rates).map(({ read }) => read)));
    const levels = [["f32", rates.f32_flops], ["f64", rates.f64_flops]].map(([name, flops]) => {
      const rate = Math.log10(flops);
      return { line: level(ridge + rate - top, rate), name, at: [view.wide - BOX.right - 20, toY(rate)], dash: [], width: name === "f32" ? 2 : 1 };
    });
    return [...slopes, ...levels].map(roof => ({ ...roof, line: inPicture(roof.line) }));
  }
  const inPicture = ([x0, y0, x1, y1]) => [toX(x0), toY(y0), toX(x1), toY(y1)];

  /** What the selected kernel is held against. */
  function ownLines() {
    if (selection.group === null || !known.some(dot => dot.group === selection.group)) return [];
    const { flops, bytes } = limits(selection.group);
    if (!flops || !bytes) return [];
    const [top, read] = [Math.log10(flops), Math.log10(bytes)];
    return [slope(read, top), level(top - read, top)].map(inPicture);
  }

  function drawLine(ctx, [x0, y0, x1, y1], colour, width, dash = []) {
    ctx.strokeStyle = colour;
    ctx.lineWidth = width;
    ctx.setLineDash(dash);
    ctx.beginPath();
    ctx.moveTo(x0, y0);
    ctx.lineTo(x1, y1);
    ctx.stroke();
    ctx.setLineDash([]);
  }

  function letter(ctx, text, [x, y]) {
    const wide = text.length * view.letter;
    const box = { left: x - wide / 2 - 2, right: x + wide / 2 + 2, top: y - 7, bottom: y + 7 };
    if (y < BOX.top || y > view.high - BOX.bottom) return [];
    ctx.fillStyle = colours.card;
    ctx.fillRect(box.left, box.top, wide + 4, 14);
    ctx.fillStyle = colours.fg;
    ctx.fillText(text, x - wide / 2, y + 1);
    return [box];
  }

  const isDim = dot => selection.group !== null && selection.group !== dot.group;

  function drawDot(ctx, dot) {
    ctx.beginPath();
    ctx.arc(dot.x, dot.y, dot.r, 0, 7);
    ctx.fillStyle = colours.card;
    ctx.fill();
    ctx.globalAlpha = isDim(dot) ? BACK : 1;
    ctx.fillStyle = dot.isAtEdge ? colours.card : paint(dot.group).fill;
    ctx.fill();
    ctx.globalAlpha = 1;
    ctx.strokeStyle = isDim(dot) ? colours.muted : colours.fg;
    ctx.lineWidth = selection.group === dot.group ? 3 : 1;
    if (dot.isAtEdge) ctx.setLineDash([2, 2]);
    ctx.stroke();
    ctx.setLineDash([]);
  }

  /** Writes a dot's rank where no other hides it, and says where that is; null where there is no such place. */
  function drawRank(ctx, dot, above) {
    const text = String(dot.group + 1);
    const by = dot.r - 6;
    const places = [[0, 0], ...(by > 2 ? [[0, by], [0, -by], [by, 0], [-by, 0]] : [])].map(([dx, dy]) => [dot.x + dx, dot.y + dy]);
    const free = places.find(([x, y]) => above.every(other => Math.hypot(other.x - x, other.y - y) > other.r + 5));
    if (!free) return null;
    ctx.fillStyle = dot.isAtEdge ? colours.fg : isDim(dot) ? colours.muted : paint(dot.group).text;
    const [[x, y], half] = [free, view.letter / 2];
    ctx.fillText(text, x - half, y + 1);
    return { dot, left: x - half, right: x + half, top: y - 6, bottom: y + 6 };
  }

  /** Puts a dot's name beside it, or its rank where that is not in it. */
  function drawName(ctx, dot, hasRank, room) {
    // In a small dot, a line that began within it would strike its rank.
    const within = hasRank && dot.r < 10 ? 0 : 2;
    const rank = dot.group < COLOURED ? `${dot.group + 1} ` : "";
    const name = view.cut(rank + names[dot.group], Math.min(200, view.wide * 0.45));
    const isNarrow = view.wide < 600;
    const most = !hasRank ? 330 : isNarrow ? 0 : 110;
    for (const text of hasRank ? [name] : isNarrow ? [rank.trim() || name] : [name, rank.trim()]) {
      const place = text && placeBeside(dot, text.length * view.letter, most, within, room);
      if (!place) continue;
      const { box, line } = place;
      if (line) drawLead(ctx, line);
      room.taken.push(box);
      if (line) room.lines.push(line);
      ctx.fillStyle = colours.card;
      ctx.fillRect(box.left, box.top, box.right - box.left, box.bottom - box.top);
      ctx.fillStyle = isDim(dot) ? colours.muted : colours.fg;
      ctx.fillText(text, box.left, (box.top + box.bottom) / 2 + 1);
      return;
    }
  }

  /** A line from a dot to its name, with a mark where it begins. */
  function drawLead(ctx, line) {
    drawLine(ctx, line, colours.fg, 1);
    ctx.fillStyle = colours.fg;
    ctx.fillRect(line[0] - 1.5, line[1] - 1.5, 3, 3);
  }

  function draw(ctx) {
    drawGrid(ctx);
    const plot = { left: BOX.left, right: view.wide - BOX.right, top: BOX.top, bottom: view.high - BOX.bottom };
    ctx.save();
    ctx.beginPath();
    ctx.rect(plot.left - 8, 0, plot.right - plot.left + 16, plot.bottom + 8);
    ctx.clip();
    const [roofs, own] = [roofLines(), ownLines()];
    for (const { line, width, dash } of roofs) drawLine(ctx, line, colours.fg, width, dash);
    for (const line of own) drawLine(ctx, line, colours.accent, 3, [10, 5]);
    const taken = roofs.flatMap(({ name, at }) => at ? letter(ctx, name, at) : []);
    const all = dots();
    all.forEach(dot => drawDot(ctx, dot));
    const ranks = all.map((dot, i) => dot.group < COLOURED ? drawRank(ctx, dot, all.slice(i + 1)) : null);
    taken.push(...ranks.filter(Boolean));
    const named = all.map((dot, i) => ({ dot, hasRank: ranks[i] !== null }))
      .filter(({ dot }) => (dot.group < COLOURED || dot.group === selection.group) && isWithin(dot, plot))
      .sort((a, b) => a.hasRank - b.hasRank || a.dot.group - b.dot.group);
    const room = { room: plot, dots: all, taken, lines: [...roofs.map(({ line }) => line), ...own] };
    for (const { dot, hasRank } of named) drawName(ctx, dot, hasRank, room);
    ctx.restore();
  }
  const isWithin = ({ x, y }, box) => x >= box.left - 1 && x <= box.right + 1 && y >= box.top - 1 && y <= box.bottom + 1;

  function lines(i) {
    const group = groups[i];
    const most = limits(i);
    return [
      names[i], `${giga(group.flops)} GFLOP/s, ${giga(group.bytes)} GB/s${star(group)}; ${digits(group.flops / group.bytes)} FLOP a byte`,
      group.of_peak === null ? null : `${ofPeak(group)} of peak; nearest limit: ${group.bound}`,
      most.flops && most.bytes ? `held against ${giga(most.flops)} GFLOP/s and, from where its bytes lie, ${giga(most.bytes)} GB/s, `
        + `which ${plural(group.threads, "thread")} can do here` : null,
      `${percent(group.share)} of the time of all ops`,
      isOver(group) ? `* ${OVER}` : null,
    ].filter(Boolean);
  }

  function pick(px, py) {
    const near = dots().reverse().filter(dot => Math.hypot(px - dot.x, py - dot.y) < dot.r + 3);
    if (!near.length) return null;
    const [{ group, isAtEdge }, ...below] = near;
    const more = [
      isAtEdge ? "beyond the edge of the picture" : null,
      below.length ? `below it: ${below.slice(0, 8).map(dot => names[dot.group]).join(", ")}; click again for the next` : null,
    ].filter(Boolean);
    return { group, pile: near.map(dot => dot.group).sort((a, b) => a - b), lines: () => [...lines(group), ...more] };
  }

  let view;
  if (machine && machine.rates.length > 1) {
    const buttons = machine.rates.map(of => {
      const button = el("button", { type: "button", "aria-pressed": String(of === rates) }, plural(of.threads, "thread"));
      button.onclick = () => {
        rates = of;
        buttons.forEach(other => other.setAttribute("aria-pressed", String(other === button)));
        listRoofs();
        if (!view) return;
        const { x, y } = scales();
        view.x.set(...x);
        view.y.set(...y);
        view.ask();
      };
      return button;
    });
    section.append(el("div", { className: "tools", role: "group", "aria-label": "Roofs of" }, "Roofs of", ...buttons));
  }
  if (!known.length) section.append(el("p", {}, "The plan states no floating-point operations, without which there is nothing to place."));
  else {
    const { x, y } = scales();
    view = new View(section, {
      label: `Roofline: ${plural(known.length, "kernel")} by arithmetic and bytes`,
      hint: "A dot is a kernel, the larger, the more of the time. The lines are what this machine can do: the flat ones of arithmetic, "
        + "the others of reading data that goes through as much memory as it says. How far a kernel is below them is what it has left. "
        + "Of peak holds a kernel against as many threads as it had, and its bytes against where they lie: of what is selected, the dashed "
        + "blue line.",
      x: new Axis(...x),
      y: new Axis(...y),
      box: BOX,
      height: () => clamp(view ? view.canvas.clientWidth * 0.55 : 340, 300, 440),
      draw, pick,
      sequence: () => known.map(({ group }) => ({ group })),
      linesOf: ({ group }) => lines(group),
      reveal: ({ group }) => {
        const dot = known.find(dot => dot.group === group);
        const [atX, atY] = [clamp(dot.x, view.x.min, view.x.max), clamp(-dot.y, view.y.min, view.y.max)];
        view.x.reveal(atX, atX);
        view.y.reveal(atY, atY);
        return [view.toX(atX), view.toY(atY)];
      },
      saySeen: () => view.x.isWhole && view.y.isWhole ? `all ${plural(known.length, "kernel")}`
        : `${digits(10 ** view.x.from)} to ${digits(10 ** view.x.to)} FLOP a byte`,
      legend: legend(
        machine ? el("span", {}, el("span", { className: "dashes" }), "what the selected kernel is held against") : null,
        known.some(isSmall) ? el("span", {}, el("span", { className: "chip edge" }), "beyond the edge: less than 0.1 % of the time") : null),
      list: () => ({
        heads: ["kernel", "FLOP a byte", "GFLOP/s", "GB/s", "of peak", "threads"],
        rows: known.map(({ group: i }) => [names[i], digits(groups[i].flops / groups[i].bytes), giga(groups[i].flops),
          giga(groups[i].bytes) + star(groups[i]), groups[i].of_peak === null ? "" : ofPeak(groups[i]), groups[i].threads]),
      }),
    });
  }
  if (!rates) section.append(el("p", { className: "hint" }, "Without roofs: the machine was not measured."));
  listRoofs();
  section.append(roofs);
  if (without.length && known.length)
    section.append(el("p", { className: "hint" }, "Without stated floating-point operations: ",
      without.slice(0, 40).map(i => names[i]).join(", "), without.length > 40 ? `, and ${without.length - 40} more` : "", "."));
}
