// How near kernels are to what arithmetic and moving bytes allow.

{
  const section = $("roofline");
  const { machine } = report;
  const dots = groups.flatMap((group, i) => group.flops > 0 && group.bytes > 0
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

  /** Whole decades that hold all dots, with room for their size, and the ridges. */
  function scales() {
    const xs = dots.map(dot => dot.x);
    const ys = dots.map(dot => dot.y);
    if (rates) {
      const most = Math.max(rates.f32_flops, rates.f64_flops);
      xs.push(...plateaus(rates).map(level => Math.log10(most / level.read) + 0.3));
      ys.push(Math.log10(most) + 0.15);
    }
    const [x0, x1] = [Math.floor(Math.min(...xs, 0) - 0.05), Math.ceil(Math.max(...xs, 0.95) + 0.05)];
    const [y0, y1] = [Math.floor(Math.min(...ys) - 0.1), Math.ceil(Math.max(...ys) + 0.1)];
    return { x0, x1, y0, y1: Math.max(y1, y0 + 1) };
  }
  let scale = null;
  /** Where letters stand: left, middle, width. */
  let taken = [];
  const LEFT = 58;
  const toX = at => LEFT + (at - scale.x0) / (scale.x1 - scale.x0) * (view.wide - LEFT - 16);
  const toY = at => view.high - 40 - (at - scale.y0) / (scale.y1 - scale.y0) * (view.high - 40 - 14);
  const radius = dot => 4 + 20 * Math.sqrt(groups[dot.group].share);

  function drawGrid(ctx) {
    ctx.fillStyle = colours.muted;
    ctx.strokeStyle = colours.line;
    ctx.lineWidth = 1;
    const decade = n => n >= 0 && n < 6 ? (10 ** n).toLocaleString("en-GB") : n < 0 && n > -4 ? (10 ** n).toFixed(-n) : `1e${n}`;
    for (let n = scale.x0; n <= scale.x1; n++) {
      const x = toX(n);
      ctx.beginPath(); ctx.moveTo(x, 14); ctx.lineTo(x, view.high - 40); ctx.stroke();
      const text = decade(n);
      ctx.fillText(text, clamp(x - text.length * view.letter / 2, 0, view.wide - text.length * view.letter), view.high - 28);
    }
    for (let n = scale.y0; n <= scale.y1; n++) {
      const y = toY(n);
      ctx.beginPath(); ctx.moveTo(LEFT, y); ctx.lineTo(view.wide - 16, y); ctx.stroke();
      const text = decade(n - 9);
      ctx.fillText(text, LEFT - 6 - text.length * view.letter, y);
    }
    const below = "FLOP a byte";
    ctx.fillText(below, (view.wide + LEFT - below.length * view.letter) / 2, view.high - 10);
    ctx.save();
    ctx.translate(9, (view.high - 26) / 2 + 26);
    ctx.rotate(-Math.PI / 2);
    ctx.fillText("GFLOP/s", 0, 0);
    ctx.restore();
  }

  function drawRoofs(ctx) {
    if (!rates) return;
    ctx.save();
    ctx.beginPath();
    ctx.rect(LEFT, 0, view.wide - LEFT, view.high - 40);
    ctx.clip();
    const top = Math.log10(Math.max(rates.f32_flops, rates.f64_flops));
    const dashes = [[], [8, 3], [4, 3], [1.5, 3]];
    ctx.strokeStyle = colours.fg;
    ctx.fillStyle = colours.fg;
    ctx.lineWidth = 1.5;
    plateaus(rates).forEach((level, i) => {
      const read = Math.log10(level.read);
      ctx.setLineDash(dashes[i % dashes.length]);
      ctx.beginPath();
      ctx.moveTo(toX(scale.x0), toY(read + scale.x0));
      ctx.lineTo(toX(top - read), toY(top));
      ctx.stroke();
      // Each letter a way along its line, so that those of lines close by stand apart.
      const at = Math.max(scale.x0, scale.y0 - read) + (top - read - Math.max(scale.x0, scale.y0 - read)) * (0.9 - 0.13 * i);
      letter(ctx, LETTERS[i], toX(at), toY(read + at));
    });
    ctx.setLineDash([]);
    const ridge = top - Math.log10(Math.max(...plateaus(rates).map(level => level.read)));
    for (const [name, flops] of [["f32", rates.f32_flops], ["f64", rates.f64_flops]]) {
      const y = toY(Math.log10(flops));
      ctx.lineWidth = name === "f32" ? 2 : 1;
      ctx.beginPath();
      ctx.moveTo(toX(ridge + Math.log10(flops) - top), y);
      ctx.lineTo(view.wide - 16, y);
      ctx.stroke();
      letter(ctx, name, view.wide - 36, y);
    }
    ctx.restore();
  }

  function letter(ctx, text, x, y) {
    const wide = text.length * view.letter;
    taken.push([x - wide / 2, y, wide]);
    ctx.fillStyle = colours.card;
    ctx.fillRect(x - wide / 2 - 2, y - 7, wide + 4, 14);
    ctx.fillStyle = colours.fg;
    ctx.fillText(text, x - wide / 2, y + 1);
  }

  function drawDots(ctx) {
    // The small ones on top.
    for (const dot of dots) {
      const { fill } = paint(dot.group);
      const back = selection.group !== null && selection.group !== dot.group;
      ctx.globalAlpha = back ? 0.3 : 0.9;
      ctx.beginPath();
      ctx.arc(toX(dot.x), toY(dot.y), radius(dot), 0, 7);
      ctx.fillStyle = fill;
      ctx.fill();
      ctx.globalAlpha = back ? 0.3 : 1;
      ctx.strokeStyle = colours.fg;
      ctx.lineWidth = selection.group === dot.group ? 3 : 1;
      ctx.stroke();
    }
    ctx.globalAlpha = 1;
    for (const dot of dots.filter(dot => dot.group < COLOURED || dot.group === selection.group)) label(ctx, dot);
  }

  /** Puts a dot's name beside it, where there is room. */
  function label(ctx, dot) {
    const [x, y, r] = [toX(dot.x), toY(dot.y), radius(dot)];
    const name = dot.group < COLOURED ? `${dot.group + 1} ${names[dot.group]}` : names[dot.group];
    const long = view.cut(name, Math.min(200, view.wide * 0.5));
    for (const text of [long, dot.group < COLOURED ? String(dot.group + 1) : ""]) {
      const wide = text.length * view.letter;
      const places = [[x + r + 4, y], [x - r - 4 - wide, y], [x - wide / 2, y - r - 8], [x - wide / 2, y + r + 9]];
      const free = places.find(([left, at]) => left > LEFT && left + wide < view.wide - 4 && at > 8 && at < view.high - 46
        && !taken.some(([l, t, w]) => left < l + w + 3 && left + wide + 3 > l && Math.abs(at - t) < 13)
        && !dots.some(other => other !== dot && Math.abs(toY(other.y) - at) < radius(other) + 5
          && toX(other.x) + radius(other) > left && toX(other.x) - radius(other) < left + wide));
      if (!text || !free) continue;
      taken.push([free[0], free[1], wide]);
      ctx.globalAlpha = 0.75;
      ctx.fillStyle = colours.card;
      ctx.fillRect(free[0] - 1, free[1] - 7, wide + 2, 14);
      ctx.globalAlpha = 1;
      ctx.fillStyle = colours.fg;
      ctx.fillText(text, free[0], free[1] + 1);
      return;
    }
  }

  const lines = i => () => {
    const group = groups[i];
    return [
      names[i], `${giga(group.flops)} GFLOP/s, ${giga(group.bytes)} GB/s`, `${digits(group.flops / group.bytes)} FLOP a byte`,
      group.of_peak === null ? null : `${percent(group.of_peak)} of peak, bound by ${group.bound}`,
      `${percent(group.share)} of the time of all ops`,
    ].filter(Boolean);
  };

  function pick(px, py) {
    const far = dot => Math.hypot(px - toX(dot.x), py - toY(dot.y)) - radius(dot);
    const near = dots.filter(dot => far(dot) < 3).sort((a, b) => radius(a) - radius(b))[0];
    return near ? { group: near.group, lines: lines(near.group) } : null;
  }

  let view;
  if (machine && machine.rates.length > 1) {
    const buttons = machine.rates.map(of => {
      const button = el("button", { type: "button", "aria-pressed": String(of === rates) }, plural(of.threads, "thread"));
      button.onclick = () => {
        rates = of;
        buttons.forEach(other => other.setAttribute("aria-pressed", String(other === button)));
        scale = scales();
        listRoofs();
        view?.ask();
      };
      return button;
    });
    section.append(el("div", { className: "tools", role: "group", "aria-label": "Roofs of" }, "Roofs of", ...buttons));
  }
  if (!dots.length) section.append(el("p", {}, "The plan states no floating-point operations, without which there is nothing to place."));
  else {
    scale = scales();
    view = new View(section, {
      label: `Roofline: ${plural(dots.length, "kernel")} by arithmetic and bytes`,
      hint: "A dot is a kernel, its area its share of the time. The lines are what this machine can do: the flat ones of arithmetic, "
        + "the others of reading data that goes through as much memory as it says. How far a kernel is below them is what it has left.",
      height: () => clamp(view ? view.canvas.clientWidth * 0.55 : 340, 300, 440),
      draw: ctx => {
        taken = [];
        drawGrid(ctx);
        drawRoofs(ctx);
        drawDots(ctx);
      },
      pick,
      sequence: () => dots.map(({ group }) => ({ group })),
      reveal: ({ group }) => {
        const dot = dots.find(dot => dot.group === group);
        return [toX(dot.x), toY(dot.y)];
      },
    });
  }
  if (!rates) section.append(el("p", { className: "hint" }, "Without roofs: the machine was not measured."));
  listRoofs();
  section.append(roofs);
  if (without.length && dots.length)
    section.append(el("p", { className: "hint" }, "Without stated floating-point operations: ",
      without.slice(0, 40).map(i => names[i]).join(", "), without.length > 40 ? `, and ${without.length - 40} more` : "", "."));
}
