// A picture of which a part is seen: zoomed and panned by wheel, drag, fingers, buttons and keys,
// and drawn when there is something new to show.

const FONT = "11px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace";
const clamp = (n, least, most) => Math.min(Math.max(n, least), most);

/** A stretch of numbers of which a part is seen. */
class Axis {
  constructor(min, max, least) {
    this.set(min, max, least);
  }
  set(min, max, least) {
    Object.assign(this, { min, max, least: Math.min(least, max - min) });
    this.fit();
  }
  get size() { return this.to - this.from; }
  get isWhole() { return this.size >= (this.max - this.min) * 0.999999; }
  fit() { [this.from, this.to] = [this.min, this.max]; }
  /** Shows `factor` times as much; `at` stays where it is. */
  zoom(factor, at) {
    const size = clamp(this.size * factor, this.least, this.max - this.min);
    this.start(at - (at - this.from) / this.size * size, size);
  }
  pan(by) { this.start(this.from + by, this.size); }
  start(from, size) {
    this.from = clamp(from, this.min, this.max - size);
    this.to = this.from + size;
  }
  /** Pans as little as shows this. */
  reveal(from, to) {
    if (from < this.from || to > this.to)
      this.start((from + to - this.size) / 2, this.size);
  }
}

class View {
  /**
   * `draw(ctx, view)` draws it, `pick(x, y)` says what is at a place, as `{ op }` or `{ group }` with
   * `lines` to say of it and, where several lie there, all `pile`d groups; `sequence` is the items in the
   * order in which keys go through them. Of an item, `reveal` pans to it and returns where it is, and
   * `linesOf` is what to say. `list` is what the picture shows as a table.
   */
  constructor(section, options) {
    Object.assign(this, { height: () => 200, box: { left: 8, right: 8, top: 20, bottom: 8 } }, options);
    this.pointers = new Map();
    const hint = options.hint ? el("p", { className: "hint", id: `${section.id}-hint` }, options.hint) : null;
    this.canvas = el("canvas", {
      tabIndex: 0, role: "application", "aria-label": options.label,
      "aria-describedby": hint ? `keys ${hint.id}` : "keys",
    });
    this.seen = el("output", { className: "seen" });
    const button = (text, label, does) => {
      const made = el("button", { type: "button", "aria-label": label, title: label }, text);
      made.onclick = () => { tip.hide(); does(); this.ask(); };
      return made;
    };
    const tools = this.x && el("div", { className: "tools", role: "group", "aria-label": `Zoom: ${options.label}` },
      button("−", "Zoom out", () => this.zoom(1.5)), button("+", "Zoom in", () => this.zoom(1 / 1.5)),
      button("Fit", "Show all", () => this.fit()), this.seen, options.tools ?? null);
    section.append(...[tools, this.canvas, options.legend, hint, options.list && asTable(options.label, options.list)]
      .filter(Boolean));
    this.listen();
    new ResizeObserver(() => this.resize()).observe(this.canvas);
    onSelect(() => this.ask());
    repaints.push(() => this.paint());
    // It is drawn once it has been laid out.
    this.canvas.style.height = `${this.height()}px`;
  }

  /** Draws it with the next frame. */
  ask() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => this.paint());
  }

  resize() {
    const height = this.height();
    this.canvas.style.height = `${height}px`;
    const width = this.canvas.clientWidth;
    const scale = devicePixelRatio || 1;
    if (!width || (width === this.wide && height === this.high && scale === this.scale)) return;
    Object.assign(this, { wide: width, high: height, scale });
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    this.resized?.();
    this.paint();
  }

  paint() {
    this.asked = false;
    if (!this.wide) return;
    const ctx = this.ctx ??= this.canvas.getContext("2d");
    ctx.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    ctx.globalAlpha = 1;
    ctx.fillStyle = colours.card;
    ctx.fillRect(0, 0, this.wide, this.high);
    ctx.font = FONT;
    ctx.textBaseline = "middle";
    ctx.textAlign = "left";
    this.letter = ctx.measureText("0").width;
    this.draw(ctx, this);
    this.seen.textContent = this.saySeen?.() ?? "";
  }

  /** A kernel's rank and name, or what of it fits. */
  nameIn(group, width) {
    const rank = group < COLOURED ? `${group + 1} ` : "";
    const whole = this.cut(rank + names[group], width);
    if (whole.length > 5 || whole.length === rank.length + names[group].length) return whole;
    return rank && width >= this.letter ? rank.trim() : "";
  }

  /** As much of a text as fits, or nothing. */
  cut(text, width) {
    const fits = Math.floor(width / this.letter);
    if (text.length <= fits) return text;
    return fits < 3 ? "" : `${text.slice(0, fits - 1)}…`;
  }

  toX(at) { return this.box.left + (at - this.x.from) / this.x.size * (this.wide - this.box.left - this.box.right); }
  toY(at) { return this.box.top + (at - this.y.from) / this.y.size * (this.high - this.box.top - this.box.bottom); }
  fromX(px) { return this.x.from + (px - this.box.left) / (this.wide - this.box.left - this.box.right) * this.x.size; }
  fromY(px) { return this.y.from + (px - this.box.top) / (this.high - this.box.top - this.box.bottom) * this.y.size; }

  fit() { this.x?.fit(); this.y?.fit(); }
  zoom(factor, px = this.wide / 2, py = this.high / 2) {
    this.x?.zoom(factor, this.fromX(px));
    this.y?.zoom(factor, this.fromY(py));
  }
  pan(dx, dy) {
    this.x?.pan(-dx / (this.wide - this.box.left - this.box.right) * this.x.size);
    this.y?.pan(-dy / (this.high - this.box.top - this.box.bottom) * this.y.size);
  }

  listen() {
    const { canvas } = this;
    const at = event => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    canvas.addEventListener("wheel", event => this.wheel(event, ...at(event)), { passive: false });
    canvas.addEventListener("pointerdown", event => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, at(event));
      this.moved = this.pointers.size > 1 || (this.moved && this.pointers.size > 1);
    });
    canvas.addEventListener("pointermove", event => this.move(event, ...at(event)));
    canvas.addEventListener("pointerup", event => {
      if (!this.pointers.delete(event.pointerId) || this.moved) return;
      const item = this.pick(...at(event));
      if (item?.op !== undefined) selectOp(item.op);
      else if (item?.group !== undefined) select(this.nextOf(item));
      else clear();
      this.tell(event, ...at(event));
    });
    canvas.addEventListener("pointercancel", event => this.pointers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => tip.hide());
    canvas.addEventListener("blur", () => tip.hide());
    canvas.addEventListener("keydown", event => this.key(event));
    canvas.addEventListener("dblclick", event => { this.zoom(0.5, ...at(event)); this.ask(); });
  }

  /** Of what lies in one place, the one on top, or the next after what is selected. */
  nextOf({ group, pile = [group] }) {
    const now = pile.indexOf(selection.group);
    return now < 0 ? group : pile[(now + 1) % pile.length];
  }

  /** A wheel zooms where the picture has the focus, or Ctrl is held; else it scrolls the page. */
  wheel(event, px, py) {
    if (!this.x) return;
    const step = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
    const [dx, dy] = [event.deltaX * step, event.deltaY * step];
    const sideways = event.shiftKey || Math.abs(dx) > Math.abs(dy);
    if (!sideways && !event.ctrlKey && !event.metaKey && document.activeElement !== this.canvas) return;
    if (!sideways && !event.ctrlKey && dy > 0 && this.x.isWhole && (!this.y || this.y.isWhole)) return;
    event.preventDefault();
    tip.hide();
    if (sideways) this.pan(-(dx || dy), 0);
    else this.zoom(Math.exp(clamp(dy, -300, 300) * 0.0025), px, py);
    this.ask();
  }

  /** Tells of what is under a pointer that is no finger. */
  tell(event, px, py) {
    const item = event.pointerType === "touch" ? null : this.pick(px, py);
    this.canvas.style.cursor = item ? "pointer" : this.x ? "grab" : "default";
    if (item) tip.show(item.lines(), event.clientX, event.clientY);
    else tip.hide();
  }

  move(event, px, py) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return this.tell(event, px, py);
    if (!this.moved && Math.hypot(px - before[0], py - before[1]) < 4) return;
    this.moved = true;
    tip.hide();
    if (!this.x) return;
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId);
    if (others.length) {
      const [, [ox, oy]] = others[0];
      const apart = Math.max(Math.hypot(px - ox, py - oy), 10);
      this.zoom(Math.hypot(before[0] - ox, before[1] - oy) / apart, (px + ox) / 2, (py + oy) / 2);
      this.pan((px - before[0]) / 2, (py - before[1]) / 2);
    } else {
      this.canvas.style.cursor = "grabbing";
      this.pan(px - before[0], py - before[1]);
    }
    this.pointers.set(event.pointerId, [px, py]);
    this.ask();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [stepX, stepY] = [this.wide * 0.15, this.high * 0.15];
    const does = {
      ArrowLeft: this.x && (() => this.pan(stepX, 0)),
      ArrowRight: this.x && (() => this.pan(-stepX, 0)),
      ArrowUp: this.y && (() => this.pan(0, stepY)),
      ArrowDown: this.y && (() => this.pan(0, -stepY)),
      "+": this.x && (() => this.zoom(1 / 1.5)),
      "=": this.x && (() => this.zoom(1 / 1.5)),
      "-": this.x && (() => this.zoom(1.5)),
      "0": this.x && (() => this.fit()),
      Home: this.x && (() => this.x.start(this.x.min, this.x.size)),
      End: this.x && (() => this.x.start(this.x.max - this.x.size, this.x.size)),
      n: () => this.step(1),
      p: () => this.step(-1),
      Enter: () => openDetails(),
      Escape: clear,
    }[event.key];
    if (!does) return;
    event.preventDefault();
    // What stays is no longer where it was; `n` and `p` show their own.
    tip.hide();
    does();
    this.ask();
  }

  /** Selects the next thing, or the one before, and shows it. */
  step(by) {
    const all = this.sequence();
    if (!all.length) return;
    const isNow = item => item.op !== undefined ? item.op === selection.op : item.group === selection.group;
    const now = all.findIndex(isNow);
    const item = all[now < 0 ? (by > 0 ? 0 : all.length - 1) : (now + by + all.length) % all.length];
    if (item.op !== undefined) selectOp(item.op);
    else select(item.group);
    const [px, py] = this.reveal(item);
    const box = this.canvas.getBoundingClientRect();
    tip.show(this.linesOf(item), box.left + px, box.top + py);
  }
}


/** The first of sorted things for which `is` holds. */
function firstThat(all, is) {
  let [low, high] = [0, all.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (is(all[middle])) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** What an op takes in most runs. */
const inMedian = op => `${time(ops[op].work_ns.median)} in the median of ${plural(ops[op].runs, "run")}`;

/** How much is seen of what stands back. */
const BACK = 0.2;

/** Draws an edge around what is filled, which tells light colours from the ground. */
function outline(ctx, x, y, wide, tall) {
  if (wide < 3 || tall < 4) return;
  ctx.strokeStyle = colours.muted;
  ctx.lineWidth = 1;
  ctx.strokeRect(x + 0.5, y + 0.5, wide - 1, tall - 1);
}

/** Diagonal lines, for what is a gap. */
function hatch(ctx) {
  const tile = el("canvas", { width: 6, height: 6 });
  const on = tile.getContext("2d");
  on.strokeStyle = colours.muted;
  on.globalAlpha = 0.55;
  on.beginPath();
  for (const at of [-3, 3, 9]) { on.moveTo(at - 3, 6); on.lineTo(at + 3, 0); }
  on.stroke();
  return ctx.createPattern(tile, "repeat");
}

/** Kernels' colours, explained under a picture. */
const legend = (...more) => el("p", { className: "legend" },
  ...groups.slice(0, COLOURED).map((_, i) => el("span", {}, chip(i), names[i])),
  groups.length > COLOURED ? el("span", {}, chip(COLOURED), "other kernels") : null, ...more);
