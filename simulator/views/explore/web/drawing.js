/* What all figures are drawn with: SVG elements, texts, axes, markers, legends. They know nothing of the model. */

const SVG = "http://www.w3.org/2000/svg";
const DASHES = { solid: "", dash: "9 5", dot: "2 4" };

const byId = (id) => document.getElementById(id);

/* Make an element; a child that is a text becomes text, never markup. */
function element(name, attributes = {}, ...children) {
  const made = SVG_NAMES.has(name)
    ? document.createElementNS(SVG, name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const SVG_NAMES = new Set(
  "svg g line path rect circle polyline polygon text title clipPath defs pattern".split(" "),
);

/* Change a text that differs: a change lays the page out anew. */
function setText(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

function significant(value, digits = 3) {
  if (value === 0) return "0";
  const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value))));
  return fixed(value, decimals);
}

function fixed(value, digits) {
  const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return value.toLocaleString("en-US", options);
}

function siText(value, unit) {
  const prefixes = ["", "k", "M", "G", "T", "P", "E"];
  const power = Math.max(0, prefixes.findLastIndex((_, at) => Math.abs(value) >= 1000 ** at));
  return `${significant(value / 1000 ** power)} ${prefixes[power]}${unit}`;
}

function timeText(seconds) {
  if (seconds >= 1) return `${significant(seconds)} s`;
  if (seconds >= 1e-3) return `${significant(seconds * 1e3)} ms`;
  return `${significant(seconds * 1e6)} µs`;
}

function gibText(bytes) {
  const gib = bytes / 2 ** 30;
  if (gib > 0 && gib < 0.1) return `${wholeText(Math.ceil(bytes / 2 ** 20))} MiB`;
  return `${fixed(gib, 1)} GiB`;
}

function wholeText(value) {
  return Math.round(value).toLocaleString("en-US");
}

/* 8192 as 8K, 8000 as 8,000. */
function sizeText(value) {
  if (value >= 2 ** 20 && value % 2 ** 20 === 0) return `${value / 2 ** 20}M`;
  if (value >= 1024 && value % 1024 === 0) return `${value / 1024}K`;
  return value < 1 ? String(value) : wholeText(value);
}

function timesText(ratio) {
  if (ratio < 9.95) return `${ratio.toFixed(ratio < 1.495 ? 2 : 1)}x`;
  return `${wholeText(ratio)}x`;
}

/* Which of some items is the least far away. */
function closest(items, distance) {
  const far = items.map(distance);
  return far.indexOf(Math.min(...far));
}

/* ---- axes ---- */

function logScale([low, high], [from, to]) {
  const [first, last] = [Math.log2(low), Math.log2(high)];
  const scale = (value) => from + ((Math.log2(value) - first) / (last - first || 1)) * (to - from);
  scale.inverse = (at) => 2 ** (first + ((at - from) / (to - from)) * (last - first));
  return scale;
}

/* Powers of two (or of ten) in a range, no more than so many; its ends if there are none. */
function powers([low, high], most, base = 2) {
  const log = (value) => Math.log(value) / Math.log(base);
  const first = Math.ceil(log(low) - 1e-9);
  const last = Math.floor(log(high) + 1e-9);
  const stride = Math.max(1, Math.ceil((last - first + 1) / most));
  const found = [];
  for (let power = first; power <= last; power += stride) found.push(base ** power);
  return found.length > 0 ? found : [low, high];
}

/* An empty drawing as wide as its box. */
function canvas({ width, label }, height) {
  const viewBox = `0 0 ${width} ${height}`;
  return element("svg", { viewBox, height, role: "img", "aria-label": label });
}

/* An empty drawing with its two axes. */
function frame(box, { height, x, y }) {
  const left = 32 + 7 * Math.max(...y.ticks.map((tick) => y.text(tick).length));
  const inner = { left, right: box.width - 18, top: 10, bottom: height - 42 };
  const svg = canvas(box, height);
  const across = logScale(x.domain, [inner.left, inner.right]);
  const up = logScale(y.domain, [inner.bottom, inner.top]);
  const pale = { stroke: box.style.pale };
  for (const tick of y.ticks) {
    const at = up(tick);
    svg.append(segment([inner.left, at], [inner.right, at], pale));
    svg.append(textAt(inner.left - 6, at + 4, y.text(tick), "end"));
  }
  for (const tick of x.ticks) {
    const at = across(tick);
    svg.append(segment([at, inner.top], [at, inner.bottom], pale));
    svg.append(textAt(at, inner.bottom + 16, x.text(tick)));
  }
  const sides = `M${inner.left} ${inner.top}V${inner.bottom}H${inner.right}`;
  svg.append(element("path", { d: sides, fill: "none", stroke: box.style.grey }));
  svg.append(...axisTitles(inner, height, x.title, y.title));
  return { svg, across, up, inner };
}

function segment(from, to, look) {
  return element("path", { d: `M${from}L${to}`, ...look });
}

function curve(places, look) {
  const points = places.map((place) => place.map((at) => at.toFixed(1))).join(" ");
  return element("polyline", { points, fill: "none", ...look });
}

function rect(x, y, width, height, look, ...children) {
  return element("rect", { x, y, width, height, ...look }, ...children);
}

function textAt(x, y, text, anchor = "middle", more = {}) {
  return element("text", { x, y, "text-anchor": anchor, ...more }, text);
}

/* What the axes of a chart are called: below it, and upright at its left. */
function axisTitles(inner, height, across, up) {
  const middle = { x: (inner.left + inner.right) / 2, y: (inner.top + inner.bottom) / 2 };
  const upright = { class: "quiet", transform: `rotate(-90 12 ${middle.y})` };
  return [
    textAt(middle.x, height - 8, across, "middle", { class: "quiet" }),
    textAt(12, middle.y, up, "middle", upright),
  ];
}

/* The marker of a point says what binds it; names are Plotly's, as in our other figures. */
function marker(symbol, x, y, size, attributes) {
  const shapes = {
    square: () => `M${x - size} ${y - size}h${2 * size}v${2 * size}h${-2 * size}z`,
    "triangle-up": () => `M${x} ${y - size * 1.2}l${size * 1.2} ${size * 2.1}h${-2.4 * size}z`,
    diamond: () =>
      `M${x} ${y - size * 1.35}l${size * 1.35} ${size * 1.35}l${-size * 1.35} ${size * 1.35}l${-size * 1.35} ${-size * 1.35}z`,
    x: () =>
      `M${x - size} ${y - size}l${2 * size} ${2 * size}M${x - size} ${y + size}l${2 * size} ${-2 * size}`,
  };
  if (symbol in shapes) return element("path", { d: shapes[symbol](), ...attributes });
  return element("circle", { cx: x, cy: y, r: size * 1.1, ...attributes });
}

function legend(entries) {
  return element(
    "ul",
    { class: "legend", "aria-hidden": "true" },
    ...entries.map(({ name, draw }) =>
      element("li", {}, element("svg", { viewBox: "0 0 26 12" }, ...draw), name),
    ),
  );
}

/* What each marker that occurs says of its point. */
function boundKeys(points, { symbols, grey }) {
  return [...new Set(points.map(({ bound }) => bound))].map((bound) => ({
    name: `${bound}-bound`,
    draw: [marker(symbols[bound], 13, 6, 3.2, { fill: grey })],
  }));
}

function strokeOf({ colour, dash }, width = 2.5) {
  return { stroke: colour, "stroke-width": width, "stroke-dasharray": DASHES[dash] };
}

function lineSwatch(look, x = 0, y = 6) {
  return segment([x, y], [x + 26, y], strokeOf(look));
}
