// The arena: where each temp lies, and how long.

{
  const section = $("memory");
  const { memory } = data;
  section.append(el("dl", { className: "numbers" }, ...pairs([
    ["Arena", bytes(memory.arena), `for ${plural(temps.length, "temp")}; alone, they would take ${bytes(memory.unplanned)}`],
    ["Needed at once", bytes(memory.lower_bound), "the most that live in one wave"],
    ["An instance", bytes(memory.instance), "arena, inputs, states and outputs"],
    ...memory.roles.filter(([role, number]) => number && role !== "temp")
      .map(([role, number, size]) => [`${role[0].toUpperCase()}${role.slice(1)}s`, bytes(size), plural(number, "buffer")]),
  ])));

  const LIVE = 64;
  const GAP = 26;
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
    ctx.fillStyle = colours.muted;
    ctx.fillText(view.cut(`live bytes, at most ${bytes(most)}`, view.wide - 16), 8, 9);
    ctx.fillText(view.cut(`where temps lie in the arena's ${bytes(memory.arena)}`, view.wide - 16), 8, axisTop - 9);
  }

  function draw(ctx) {
    drawLive(ctx);
    ctx.strokeStyle = colours.line;
    ctx.lineWidth = 1;
    ctx.strokeRect(view.toX(view.x.min), offsetY(memory.arena), view.toX(view.x.max) - view.toX(view.x.min),
      offsetY(0) - offsetY(memory.arena));
    for (const temp of temps) {
      const [x0, x1] = [view.toX(from(temp)), view.toX(to(temp))];
      if (x1 < 0 || x0 > view.wide) continue;
      const [y0, y1] = [offsetY(temp.offset + temp.bytes), offsetY(temp.offset)];
      const uses = selection.op !== null && temp.users.includes(selection.op);
      const { fill, text } = paint(groupOf[temp.writer]);
      ctx.globalAlpha = selection.op !== null ? (uses ? 1 : 0.3) : isBack(temp.writer) ? 0.3 : 1;
      ctx.fillStyle = fill;
      const [wide, tall] = [Math.max(x1 - x0 - (x1 - x0 > 4 ? 1 : 0), 1), Math.max(y1 - y0 - (y1 - y0 > 4 ? 1 : 0), 1)];
      ctx.fillRect(x0, y0, wide, tall);
      if (uses) {
        ctx.strokeStyle = colours.fg;
        ctx.lineWidth = 2;
        ctx.strokeRect(x0 + 1, y0 + 1, Math.max(wide - 2, 1), Math.max(tall - 2, 1));
      }
      if (tall > 12 && wide > 12) {
        const left = Math.max(x0, 0) + 3;
        const room = Math.min(x1, view.wide) - left - 3;
        const group = groupOf[temp.writer];
        const rank = group < COLOURED ? String(group + 1) : "";
        const texts = [`${bufferName(temp.buffer)}, ${bytes(temp.bytes)}`, bytes(temp.bytes), ""];
        const label = texts.map(text => rank && text ? `${rank}: ${text}` : rank || text)
          .find(label => label.length * view.letter <= room);
        ctx.fillStyle = text;
        if (label) ctx.fillText(label, left, (y0 + y1) / 2 + 1);
      }
      ctx.globalAlpha = 1;
    }
    drawAxis(ctx);
  }

  function drawAxis(ctx) {
    const marks = ticks(view.x.from, view.x.to, view.wide / 95, 1);
    const step = marks.length > 1 ? marks[1] - marks[0] : view.x.size;
    ctx.fillStyle = colours.muted;
    for (const at of marks) {
      const text = byTime ? timeTick(at, step, view.x.to) : String(at);
      const wide = text.length * view.letter;
      ctx.fillText(text, clamp(view.toX(at) - wide / 2, 2, view.wide - wide - 2), view.high - 10);
    }
  }

  const lines = temp => () => {
    const { shape } = buffers[temp.buffer];
    return [
      `${bufferName(temp.buffer)}: ${shape}`,
      `${bytes(temp.bytes)} at ${temp.offset.toLocaleString("en-GB")} of the arena`,
      `written first by op ${temp.writer}: ${nameOfOp(temp.writer)}`,
      `used last by op ${temp.users.at(-1)}: ${nameOfOp(temp.users.at(-1))}`,
      `lives for ${plural(temp.last - temp.first, "op")} of the run's order, ${time(temp.end - temp.start)}`,
    ];
  };

  function pick(px, py) {
    const isAt = temp => {
      const [x0, x1] = [view.toX(from(temp)), view.toX(to(temp))];
      const [y0, y1] = [offsetY(temp.offset + temp.bytes), offsetY(temp.offset)];
      return px >= x0 && px <= Math.max(x1, x0 + 2) && py >= y0 && py <= Math.max(y1, y0 + 2);
    };
    const temp = temps.find(isAt);
    return temp ? { op: temp.writer, lines: lines(temp) } : null;
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
    view = new View(section, {
      label: `${plural(temps.length, "temp")} in an arena of ${bytes(memory.arena)}, over the run's order`,
      hint: "A rectangle is a temp, from the op that uses it first to the one that uses it last, coloured by what writes it.",
      x: new Axis(...axis()),
      height: () => 360,
      tools: toggle,
      draw, pick,
      sequence: () => [...new Set(wrote.map(temp => temp.writer))].map(op => ({ op })),
      reveal: ({ op }) => {
        const temp = wrote.find(temp => temp.writer === op);
        view.x.reveal(from(temp), to(temp));
        const middle = clamp((from(temp) + to(temp)) / 2, view.x.from, view.x.to);
        return [view.toX(middle), offsetY(temp.offset + temp.bytes / 2)];
      },
      saySeen: () => byTime ? `${time(view.x.from)} to ${time(view.x.to)}`
        : `ops ${Math.ceil(view.x.from)} to ${Math.floor(view.x.to)} of ${ops.length}, in the run's order`,
      legend: legend(),
      list: () => ({
        heads: ["temp", "type", "bytes", "offset", "first op", "last op"],
        rows: wrote.map(t => [bufferName(t.buffer), buffers[t.buffer].shape, t.bytes, t.offset, t.users[0], t.users.at(-1)]),
      }),
    });
  }
}
