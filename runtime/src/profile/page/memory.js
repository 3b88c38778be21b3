// The arena: where each temp lies, and how long.

{
  const section = $("memory");
  const { memory } = data;
  section.append(el("dl", { className: "numbers" }, ...pairs([
    ["Arena", bytes(memory.arena), `for ${plural(temps.length, "temp")}; alone, they would take ${bytes(memory.unplanned)}`],
    ["Needed at once", bytes(memory.lower_bound), "the most that live in one wave, each in whole cache lines"],
    ["An instance", bytes(memory.instance), "arena, inputs, states and outputs"],
    ...memory.roles.filter(([role, number]) => number && role !== "temp")
      .map(([role, number, size]) => [`${role[0].toUpperCase()}${role.slice(1)}s`, bytes(size), plural(number, "buffer")]),
  ])));

  const LIVE = 64;
  const GAP = 26;
  const LEFT = 60;
  let byTime = false;
  const from = temp => byTime ? temp.start : temp.first;
  const to = temp => byTime ? temp.end : temp.last;

  /** How many bytes live, from each place on at which that changes. */
  function live() {
    const changes = temps.flatMap(temp => [[from(temp), temp.bytes], [to(temp), -temp.bytes]]);
    changes.sort((a, b) => a[0] - b[0]);
    const all = [];
    let now = 0;
    for (const [at, by] of changes) {
      now += by;
      if (all.at(-1)?.[0] === at) all.at(-1)[1] = now;
      else all.push([at, now]);
    }
    return all;
  }
  let steps = live();

  const axisTop = 20 + LIVE + GAP;
  const offsetY = at => view.high - 22 - at / memory.arena * (view.high - 22 - axisTop);

  function drawLive(ctx) {
    const base = 20 + LIVE;
    const y = n => base - n / memory.arena * LIVE;
    const most = Math.max(...steps.map(([, n]) => n));
    clip(ctx);
    ctx.beginPath();
    ctx.moveTo(view.toX(view.x.min), base);
    let before = base;
    for (const [at, n] of steps) {
      const x = clamp(view.toX(at), -5, view.wide + 5);
      ctx.lineTo(x, before);
      ctx.lineTo(x, before = y(n));
    }
    ctx.lineTo(clamp(view.toX(view.x.max), -5, view.wide + 5), before);
    ctx.lineTo(view.toX(view.x.max), base);
    ctx.fillStyle = colours.band;
    ctx.fill();
    ctx.strokeStyle = colours.accent;
    ctx.lineWidth = 1.5;
    ctx.stroke();
    ctx.restore();
    drawSizes(ctx, y, [0, memory.arena / 2, memory.arena]);
    ctx.fillText(view.cut(`live bytes, at most ${bytes(most)}`, view.wide - LEFT - 8), LEFT, 9);
    ctx.fillText(view.cut(`where temps lie in the arena's ${bytes(memory.arena)}`, view.wide - LEFT - 8), LEFT, axisTop - 9);
  }

  /** Keeps what is panned from the numbers at the left, until what is restored. */
  function clip(ctx) {
    ctx.save();
    ctx.beginPath();
    ctx.rect(LEFT - 2, 0, view.wide - LEFT + 2, view.high);
    ctx.clip();
  }

  /** Numbers of bytes at the left, where they are in a picture. */
  function drawSizes(ctx, y, all) {
    for (const size of all) {
      const text = bytes(Math.round(size));
      ctx.fillStyle = colours.line;
      ctx.fillRect(LEFT - 4, Math.round(y(size)), 4, 1);
      ctx.fillStyle = colours.muted;
      ctx.fillText(text, LEFT - 6 - text.length * view.letter, y(size));
    }
  }

  function draw(ctx) {
    drawLive(ctx);
    drawSizes(ctx, offsetY, [0, 0.25, 0.5, 0.75, 1].map(part => part * memory.arena));
    clip(ctx);
    ctx.strokeStyle = colours.line;
    ctx.lineWidth = 1;
    ctx.strokeRect(view.toX(view.x.min), offsetY(memory.arena), view.toX(view.x.max) - view.toX(view.x.min),
      offsetY(0) - offsetY(memory.arena));
    drawTemps(ctx);
    ctx.restore();
    drawAxis(ctx);
  }

  /** Where a temp lies in the picture: its top and height are whole pixels, so that none is a mere shade. */
  function boxOf(temp) {
    const [y0, y1] = [offsetY(temp.offset + temp.bytes), offsetY(temp.offset)].map(Math.round);
    return { x0: view.toX(from(temp)), x1: view.toX(to(temp)), y0, tall: Math.max(y1 - y0 - (y1 - y0 > 4 ? 1 : 0), 2) };
  }
  /** Thin ones are drawn over what lies beside them. */
  const drawn = [...temps].sort((a, b) => b.bytes - a.bytes);

  function drawTemps(ctx) {
    for (const temp of drawn) {
      const { x0, x1, y0, tall } = boxOf(temp);
      if (x1 < LEFT || x0 > view.wide) continue;
      const uses = selection.op !== null && temp.users.includes(selection.op);
      const { fill, text } = paint(groupOf[temp.writer]);
      const isDim = selection.op !== null ? !uses : isBack(temp.writer);
      const isThin = tall < 4;
      ctx.globalAlpha = isDim ? (isThin ? 0.5 : BACK) : 1;
      ctx.fillStyle = uses && isThin ? colours.fg : fill;
      const wide = Math.max(x1 - x0 - (x1 - x0 > 4 ? 1 : 0), 1);
      ctx.fillRect(x0, y0, wide, tall);
      ctx.globalAlpha = 1;
      if (!isThin) outline(ctx, x0, y0, wide, tall);
      else if (!uses) {
        ctx.fillStyle = colours.muted;
        ctx.fillRect(x0, y0 + tall - 1, wide, 1);
      }
      if (uses && !isThin) {
        ctx.strokeStyle = colours.fg;
        ctx.lineWidth = 2;
        ctx.strokeRect(x0 + 1, y0 + 1, Math.max(wide - 2, 1), Math.max(tall - 2, 1));
      }
      if (tall > 12 && wide > 12) {
        const left = Math.max(x0, LEFT) + 3;
        const room = Math.min(x1, view.wide) - left - 3;
        const group = groupOf[temp.writer];
        const rank = group < COLOURED ? String(group + 1) : "";
        const texts = [`${bufferName(temp.buffer)}, ${bytes(temp.bytes)}`, bytes(temp.bytes), ""];
        const label = texts.map(text => rank && text ? `${rank}: ${text}` : rank || text)
          .find(label => label.length * view.letter <= room);
        ctx.fillStyle = isDim ? colours.muted : text;
        if (label) ctx.fillText(label, left, y0 + tall / 2 + 1);
      }
    }
  }

  function drawAxis(ctx) {
    const marks = ticks(view.x.from, view.x.to, view.wide / 95, 1);
    const step = marks.length > 1 ? marks[1] - marks[0] : view.x.size;
    ctx.fillStyle = colours.muted;
    ctx.fillText(byTime ? "time" : "op", 8, view.high - 10);
    for (const at of marks) {
      const text = byTime ? timeTick(at, step, view.x.to) : String(at);
      const wide = text.length * view.letter;
      ctx.fillText(text, clamp(view.toX(at) - wide / 2, LEFT - 6, view.wide - wide - 2), view.high - 10);
    }
  }

  function lines(temp) {
    const { shape } = buffers[temp.buffer];
    return [
      `${bufferName(temp.buffer)}: ${shape}`,
      `${bytes(temp.bytes)}, from byte ${temp.offset.toLocaleString("en-GB")} of the arena on`,
      `written first by op ${temp.writer}: ${nameOfOp(temp.writer)}`,
      `used last by op ${temp.users.at(-1)}: ${nameOfOp(temp.users.at(-1))}`,
      `lives for ${plural(temp.last - temp.first, "op")} of the run's order, ${time(temp.end - temp.start)}`,
    ];
  }

  function pick(px, py) {
    const isAt = temp => {
      const { x0, x1, y0, tall } = boxOf(temp);
      return px >= x0 && px <= Math.max(x1, x0 + 2) && py >= y0 && py <= y0 + tall + 1;
    };
    const temp = px < LEFT ? null : [...drawn].reverse().find(isAt);
    return temp ? { op: temp.writer, lines: () => lines(temp) } : null;
  }

  const axis = () => byTime ? [0, Math.max(trace.took, 1), Math.min(20, Math.max(trace.took, 1))]
    : [0, Math.max(ops.length, 1), Math.min(2, Math.max(ops.length, 1))];
  const toggle = el("button", { type: "button", "aria-pressed": "false" }, "By time");
  toggle.title = "Show when temps live in the traced run, instead of their place in its order";
  toggle.onclick = () => {
    byTime = !byTime;
    toggle.setAttribute("aria-pressed", String(byTime));
    steps = live();
    view.x.set(...axis());
    view.ask();
  };
  let view;
  if (!temps.length) section.append(el("p", {}, "There are no temps, and so no arena."));
  else {
    const wrote = [...temps].sort((a, b) => a.first - b.first);
    const firstOf = op => wrote.find(temp => temp.writer === op);
    view = new View(section, {
      label: `${plural(temps.length, "temp")} in an arena of ${bytes(memory.arena)}, over the run's order`,
      hint: "A rectangle is a temp, from the op that uses it first to the one that uses it last, coloured by what writes it. "
        + "Above them, how many bytes live, without what rounds each up to whole cache lines.",
      x: new Axis(...axis()),
      box: { left: LEFT, right: 8, top: 20, bottom: 8 },
      height: () => 360,
      tools: toggle,
      draw, pick,
      sequence: () => [...new Set(wrote.map(temp => temp.writer))].map(op => ({ op })),
      linesOf: ({ op }) => lines(firstOf(op)),
      reveal: ({ op }) => {
        const temp = firstOf(op);
        view.x.reveal(from(temp), to(temp));
        const middle = clamp((from(temp) + to(temp)) / 2, view.x.from, view.x.to);
        return [view.toX(middle), offsetY(temp.offset + temp.bytes / 2)];
      },
      saySeen: () => byTime ? `${time(view.x.from)} to ${time(view.x.to)}`
        : `ops ${Math.ceil(view.x.from)} to ${Math.min(Math.floor(view.x.to), ops.length - 1)} of ${ops.length}, in the run's order`,
      legend: legend(),
      list: () => ({
        heads: ["temp", "type", "bytes", "offset, bytes", "first op", "last op"],
        rows: wrote.map(t => [bufferName(t.buffer), buffers[t.buffer].shape, t.bytes, t.offset, t.users[0], t.users.at(-1)]),
      }),
    });
  }
}
