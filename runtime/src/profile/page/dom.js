// Elements, the tooltip, and long lists as tables.

const $ = id => document.getElementById(id);

/** An element; of its properties, those with a dash and `role` are attributes. */
function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}

/** Pairs of terms and what they are, for a `dl`. */
const pairs = all => all.filter(Boolean).map(([term, value, note]) =>
  el("div", {}, el("dt", {}, term), el("dd", {}, value, note ? el("small", {}, note) : null)));

const tip = {
  box: $("tip"),
  /** Shows lines beside a place of the window, and inside it. */
  show(lines, x, y) {
    const [head, ...rest] = lines;
    this.box.replaceChildren(el("strong", {}, head), ...rest.map(line => el("span", {}, line)));
    this.box.hidden = false;
    this.scrolled = scrollY;
    // Where it was before, the edge of the window might make it narrower.
    this.box.style.left = this.box.style.top = "0";
    const { offsetWidth: width, offsetHeight: height } = this.box;
    const left = Math.min(x + 14, innerWidth - width - 6);
    const top = y + 18 + height > innerHeight ? y - height - 10 : y + 18;
    this.box.style.left = `${Math.max(6, left)}px`;
    this.box.style.top = `${Math.max(6, top)}px`;
  },
  hide() { this.box.hidden = true; },
};
// Of a scroll from before it was shown, it may be told only now.
addEventListener("scroll", () => { if (scrollY !== tip.scrolled) tip.hide(); }, { passive: true });

/** Says something to who does not see the page. */
function say(text) { $("said").textContent = text; }

/** A chip in a kernel's colour, with its rank, which says the same without the colour. */
function chip(group) {
  const has = group < COLOURED;
  const mark = el("span", { className: "chip", "aria-hidden": "true" }, has ? String(group + 1) : "");
  mark.style.background = has ? PALETTE[group].fill : "var(--other)";
  if (has) mark.style.color = PALETTE[group].text;
  return mark;
}

/** A table of rows of text, some at a time. */
function table(heads, rows, { some = 100, caption, mark } = {}) {
  const body = el("tbody");
  const more = el("button", { type: "button", className: "more" });
  let shown = 0;
  const grow = () => {
    const next = rows.slice(shown, shown + some);
    body.append(...next.map((row, i) => {
      const line = el("tr", {}, ...row.map(cell => el("td", {}, cell)));
      mark?.(line, shown + i);
      return line;
    }));
    shown += next.length;
    more.hidden = shown >= rows.length;
    more.textContent = `${Math.min(some, rows.length - shown)} more of ${rows.length}`;
  };
  more.onclick = grow;
  grow();
  const head = el("thead", {}, el("tr", {}, ...heads.map(head => el("th", { scope: "col" }, head))));
  const whole = el("table", {}, caption ? el("caption", { className: "unseen" }, caption) : null, head, body);
  const frame = el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": caption }, whole);
  return el("div", {}, frame, more);
}

/** What a picture shows as a table, made when it is opened. */
function asTable(caption, make) {
  const box = el("details", { className: "text" }, el("summary", {}, "As a table"));
  box.addEventListener("toggle", () => {
    if (box.open && box.children.length === 1) {
      const { heads, rows } = make();
      box.append(table(heads, rows, { caption }));
    }
  });
  return box;
}
