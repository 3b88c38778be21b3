// Where names stand beside dots: close by, and over no other dot, name or line.

/** Whether a line meets a box. */
function meets([x0, y0, x1, y1], box) {
  let [from, to] = [0, 1];
  for (const [at, by, least, most] of [[x0, x1 - x0, box.left, box.right], [y0, y1 - y0, box.top, box.bottom]]) {
    if (by === 0) {
      if (at < least || at > most) return false;
      continue;
    }
    const [a, b] = [(least - at) / by, (most - at) / by];
    from = Math.max(from, Math.min(a, b));
    to = Math.min(to, Math.max(a, b));
  }
  return from <= to;
}

const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
const grown = (box, by) => ({ left: box.left - by, right: box.right + by, top: box.top - by, bottom: box.bottom + by });

/** How far a dot's edge is from a box. */
const apart = (dot, box) =>
  Math.hypot(Math.max(box.left - dot.x, dot.x - box.right, 0), Math.max(box.top - dot.y, dot.y - box.bottom, 0)) - dot.r;

/** How far a dot's edge is from a line. */
function besides(dot, [x0, y0, x1, y1]) {
  const [dx, dy] = [x1 - x0, y1 - y0];
  const part = clamp(((dot.x - x0) * dx + (dot.y - y0) * dy) / (dx * dx + dy * dy || 1), 0, 1);
  return Math.hypot(dot.x - x0 - part * dx, dot.y - y0 - part * dy) - dot.r;
}

/**
 * Around a dot, the nearest first and none beyond `most`: a box of this width, and where it does not touch, a line to it from
 * so far within the dot.
 */
function* placesAround({ x, y, r }, wide, most, within) {
  const half = 7;
  const box = (left, middle) => ({ left, right: left + wide, top: middle - half, bottom: middle + half });
  yield { box: box(x + r + 4, y) };
  yield { box: box(x - r - 4 - wide, y) };
  yield { box: box(x - wide / 2, y - r - half - 2) };
  yield { box: box(x - wide / 2, y + r + half + 2) };
  for (let far = r + 14; far < r + most; far = far * 1.15 + 4) {
    for (let i = 0; i < 24; i++) {
      const angle = i * Math.PI / 12;
      const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
      const [px, py] = [x + far * cos, y + far * sin];
      const line = [x + (r - within) * cos, y + (r - within) * sin, px, py];
      if (cos > 0.25) yield { box: box(px + 2, py), line };
      else if (cos < -0.25) yield { box: box(px - wide - 2, py), line };
      else yield { box: box(px - wide / 2, py + Math.sign(sin) * half), line };
    }
  }
}

/**
 * The nearest place beside a dot for a text of this width, within `room` and no farther than `most`; undefined where there is none.
 * A line to it begins so far `within` the dot, or less. `dots` are in the order in which they are drawn, `taken` the boxes of
 * what has been written, with the `dot` of a rank, `lines` those that are drawn.
 */
function placeBeside(dot, wide, most, within, { room, dots, taken, lines }) {
  const others = dots.filter(other => other !== dot);
  const above = dots.slice(dots.indexOf(dot) + 1);
  // A line may cross what lies below its own dot, and keeps away from those that lie elsewhere.
  const clears = line => others.every(other => {
    const isElsewhere = Math.hypot(other.x - dot.x, other.y - dot.y) > other.r + dot.r;
    return besides(other, line) > (isElsewhere ? 4 : above.includes(other) ? 1 : -Infinity);
  });
  const isFree = ({ box, line }) => {
    if (box.left < room.left || box.right > room.right || box.top < room.top || box.bottom > room.bottom) return false;
    if (taken.some(other => overlap(grown(box, 2), other))) return false;
    // What touches a dot must be far from others, so as not to seem theirs.
    if (others.some(other => apart(other, box) < (line ? 3 : 7))) return false;
    if (lines.some(other => meets(other, grown(box, 1)))) return false;
    return !line || (clears(line) && !taken.some(other => meets(line, grown(other, other.dot === dot ? 0 : 2))));
  };
  // Of a dot that is hidden, the line begins at the edge.
  for (const depth of [within, 0, -3])
    for (const place of placesAround(dot, wide, most, depth)) if (isFree(place)) return place;
}
