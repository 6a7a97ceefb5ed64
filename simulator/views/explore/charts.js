"use strict";

/* Figures as SVG, drawn anew on every change. They know nothing of the model. */

const SVG = "http://www.w3.org/2000/svg";
const DASHES = { solid: "", dash: "9 5", dot: "2 4" };

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

/* ---- texts ---- */

function significant(value, digits = 3) {
  if (value === 0) return "0";
  const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value))));
  return value.toLocaleString("en-US", {
    minimumFractionDigits: decimals,
    maximumFractionDigits: decimals,
  });
}

function siText(value, unit) {
  const prefixes = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [0, ""]];
  const [factor, prefix] = prefixes.find(([size]) => Math.abs(value) >= size);
  return `${significant(value / (factor || 1))} ${prefix}${unit}`;
}

function timeText(seconds) {
  if (seconds >= 1) return `${significant(seconds)} s`;
  if (seconds >= 1e-3) return `${significant(seconds * 1e3)} ms`;
  return `${significant(seconds * 1e6)} µs`;
}

function gibText(bytes) {
  const gib = bytes / 2 ** 30;
  if (gib > 0 && gib < 0.1) return `${wholeText(Math.ceil(bytes / 2 ** 20))} MiB`;
  return `${gib.toLocaleString("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 })} GiB`;
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

/* ---- axes ---- */

function logScale([low, high], [from, to]) {
  const [first, last] = [Math.log2(low), Math.log2(high)];
  const scale = (value) => from + ((Math.log2(value) - first) / (last - first || 1)) * (to - from);
  scale.inverse = (at) => 2 ** (first + ((at - from) / (to - from)) * (last - first));
  return scale;
}

/* Powers of two (or of ten) in a range, no more than so many. */
function powers([low, high], most, base = 2) {
  const log = (value) => Math.log(value) / Math.log(base);
  const first = Math.ceil(log(low) - 1e-9);
  const last = Math.floor(log(high) + 1e-9);
  const stride = Math.max(1, Math.ceil((last - first + 1) / most));
  const found = [];
  for (let power = first; power <= last; power += stride) found.push(base ** power);
  return found;
}

/* An empty drawing with its two axes. */
function frame(box, { width, height, x, y }) {
  const left = 32 + 7 * Math.max(...y.ticks.map((tick) => y.text(tick).length));
  const inner = { left, right: width - 18, top: 10, bottom: height - 42 };
  const svg = element("svg", {
    viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": box.label,
  });
  const across = logScale(x.domain, [inner.left, inner.right]);
  const up = logScale(y.domain, [inner.bottom, inner.top]);
  for (const tick of y.ticks) {
    const at = up(tick);
    svg.append(
      element("line", { x1: inner.left, x2: inner.right, y1: at, y2: at, stroke: box.style.pale }),
      element("text", { x: inner.left - 6, y: at + 4, "text-anchor": "end" }, y.text(tick)),
    );
  }
  for (const tick of x.ticks) {
    const at = across(tick);
    svg.append(
      element("line", { x1: at, x2: at, y1: inner.top, y2: inner.bottom, stroke: box.style.pale }),
      element("text", { x: at, y: inner.bottom + 16, "text-anchor": "middle" }, x.text(tick)),
    );
  }
  svg.append(
    element("path", {
      d: `M${inner.left} ${inner.top}V${inner.bottom}H${inner.right}`,
      fill: "none", stroke: box.style.grey,
    }),
    element("text", {
      x: (inner.left + inner.right) / 2, y: height - 8, "text-anchor": "middle", class: "quiet",
    }, x.title),
    element("text", {
      x: 12, y: (inner.top + inner.bottom) / 2, "text-anchor": "middle", class: "quiet",
      transform: `rotate(-90 12 ${(inner.top + inner.bottom) / 2})`,
    }, y.title),
  );
  return { svg, across, up, inner };
}

/* The marker of a point says what binds it; names are Plotly's, as in our other figures. */
function marker(symbol, x, y, size, attributes) {
  const shapes = {
    square: () => `M${x - size} ${y - size}h${2 * size}v${2 * size}h${-2 * size}z`,
    "triangle-up": () => `M${x} ${y - size * 1.2}l${size * 1.2} ${size * 2.1}h${-2.4 * size}z`,
    diamond: () => `M${x} ${y - size * 1.35}l${size * 1.35} ${size * 1.35}l${-size * 1.35} ${size * 1.35}l${-size * 1.35} ${-size * 1.35}z`,
    x: () => `M${x - size} ${y - size}l${2 * size} ${2 * size}M${x - size} ${y + size}l${2 * size} ${-2 * size}`,
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

function lineSwatch(line) {
  return element("line", {
    x1: 0, x2: 26, y1: 6, y2: 6, stroke: line.colour, "stroke-width": 2.5,
    "stroke-dasharray": DASHES[line.dash],
  });
}

/* ---- line chart: one quantity of time along one of the sliders ---- */

function lineChart(box, { series, now, x, pick }) {
  const { style, width } = box;
  const times = series.flatMap(({ points }) => points.map((point) => point.y * 1e3));
  const domain = [Math.min(...times) / 1.15, Math.max(...times) * 1.15];
  const xDomain = [series[0].points[0].x, series[0].points.at(-1).x];
  const parts = frame(box, {
    width, height: 290,
    x: {
      domain: xDomain, ticks: powers(xDomain, Math.floor(width / 46)), text: sizeText, title: x.title,
    },
    y: { domain, ticks: powers(domain, 8), text: msText, title: "decode step [ms]" },
  });
  const { svg, across, up, inner } = parts;
  const here = across(now);
  svg.append(element("line", {
    x1: here, x2: here, y1: inner.top, y2: inner.bottom, stroke: style.ink, "stroke-width": 1,
    class: "now",
  }));
  for (const { line, points } of series) {
    const place = (point) => `${across(point.x).toFixed(1)},${up(point.y * 1e3).toFixed(1)}`;
    const fitting = points.filter((point) => point.fits);
    const from = Math.max(0, fitting.length - 1);
    const drawn = { fill: "none", stroke: line.colour, "stroke-width": 2.5,
      "stroke-dasharray": DASHES[line.dash] };
    svg.append(
      element("polyline", { points: fitting.map(place).join(" "), class: "fits", ...drawn }),
      element("polyline", {
        points: points.slice(from).map(place).join(" "), opacity: style.unfit_opacity, ...drawn,
      }),
    );
    for (const point of points) {
      if (!point.mark) continue;
      svg.append(marker(style.symbols[point.bound], across(point.x), up(point.y * 1e3), 3.2, {
        fill: line.colour, opacity: point.fits ? 1 : style.unfit_opacity,
      }));
    }
    if (fitting.length && fitting.length < points.length) {
      const last = fitting.at(-1);
      svg.append(marker("x", across(last.x), up(last.y * 1e3), 5, {
        fill: "none", stroke: style.ink, "stroke-width": 2,
      }));
    }
  }
  readout(box, svg, inner, (at) => {
    const wanted = across.inverse(at);
    const nearest = series[0].points.reduce((best, point, index) =>
      Math.abs(Math.log(point.x / wanted)) < Math.abs(Math.log(series[0].points[best].x / wanted)) ? index : best, 0);
    const texts = series.map(({ line, points }) =>
      `${line.name} ${timeText(points[nearest].y)}${points[nearest].fits ? "" : " (does not fit)"}`);
    return { value: series[0].points[nearest].x,
      text: `${sizeText(series[0].points[nearest].x)} ${x.unit}: ${texts.join(", ")}` };
  }, pick);
  const bounds = [...new Set(series.flatMap(({ points }) => points.map((point) => point.bound)))];
  box.draw(svg, legend([
    ...series.map(({ line }) => ({ name: line.name, draw: [lineSwatch(line)] })),
    ...bounds.map((bound) => ({
      name: `${bound}-bound`, draw: [marker(style.symbols[bound], 13, 6, 3.2, { fill: style.grey })],
    })),
    ...(series.some(({ points }) => points[0].fits && !points.at(-1).fits)
      ? [{ name: "last that fits", draw: [marker("x", 13, 6, 4, { stroke: style.ink, "stroke-width": 2 })] }]
      : []),
  ]), true);
}

function msText(value) {
  return value >= 1 ? wholeText(value) : String(Number(value.toPrecision(2)));
}

/* Say under a figure what the pointer is at, and take a click there as a choice. */
function readout(box, svg, inner, find, pick) {
  const at = (event) => {
    const frameBox = svg.getBoundingClientRect();
    return ((event.clientX - frameBox.left) / frameBox.width) * box.width;
  };
  svg.addEventListener("pointermove", (event) => box.say(find(at(event)).text));
  svg.addEventListener("pointerleave", () => box.say(""));
  svg.addEventListener("click", (event) => pick(find(at(event)).value));
  svg.style.cursor = "pointer";
}

/* ---- stacked bars, one for each way ---- */

function barChart(box, { rows, unit, limit }) {
  const { style, width } = box;
  const rowHeight = 46;
  const height = rows.length * rowHeight + (limit ? 26 : 4);
  const longest = Math.max(...rows.map((row) => row.parts.reduce((sum, part) => sum + part.value, 0)), limit ? limit.value : 0);
  const inner = { left: 4, right: width - 12, bottom: rows.length * rowHeight };
  const across = (value) => inner.left + (value / longest) * (inner.right - inner.left);
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": box.label });
  rows.forEach((row, index) => {
    const top = index * rowHeight;
    const total = row.parts.reduce((sum, part) => sum + part.value, 0);
    svg.append(
      element("line", {
        x1: inner.left, x2: inner.left + 26, y1: top + 9, y2: top + 9, stroke: row.line.colour,
        "stroke-width": 2.5, "stroke-dasharray": DASHES[row.line.dash],
      }),
      element("text", { x: inner.left + 32, y: top + 13 }, `${row.line.name}: ${unit.text(total)}${row.remark || ""}`),
    );
    let start = 0;
    for (const part of row.parts) {
      if (part.value <= 0) continue;
      svg.append(element("rect", {
        x: across(start), width: Math.max(0.5, across(start + part.value) - across(start)),
        y: top + 18, height: 16, fill: part.colour,
      }, element("title", {}, `${part.name}: ${unit.text(part.value)}`)));
      start += part.value;
    }
  });
  if (limit) {
    const at = across(limit.value);
    svg.append(
      element("line", { x1: at, x2: at, y1: 14, y2: inner.bottom + 2, stroke: style.ink, "stroke-width": 2, "stroke-dasharray": "4 3" }),
      element("text", { x: at, y: inner.bottom + 16, "text-anchor": at > width * 0.6 ? "end" : "start" }, limit.text),
    );
  }
  const used = rows[0].parts.filter((_, at) => rows.some((row) => row.parts[at].value > 0));
  box.draw(svg, legend(used.map(({ name, colour }) => ({
    name, draw: [element("rect", { x: 6, y: 0, width: 14, height: 12, fill: colour })],
  }))), false);
}

/* ---- heat map of the speed-up ---- */

/* Blue where bifurcated is faster, vermillion where standard is, white between. */
function speedupColour(speedup, most, lines) {
  const share = Math.min(1, Math.abs(Math.log2(speedup)) / Math.log2(most));
  const mixed = (end) => `color-mix(in srgb, ${end} ${Math.round(10 + 90 * share)}%, white)`;
  if (Math.abs(speedup - 1) < 0.02) return "#ffffff";
  return mixed(speedup > 1 ? lines.bifurcated.colour : lines.standard.colour);
}

function heatMap(box, { columns, rows, cells, now, x, y, pick }) {
  const { style, width } = box;
  const height = 330;
  const inner = { left: 58, right: width - 8, top: 6, bottom: height - 42 };
  const across = (column) => inner.left + (column / columns.length) * (inner.right - inner.left);
  const down = (row) => inner.bottom - (row / rows.length) * (inner.bottom - inner.top);
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": box.label });
  const most = Math.max(2, ...cells.flat().map((cell) => Math.max(cell.speedup, 1 / cell.speedup)));
  const cellWidth = across(1) - across(0);
  const cellHeight = down(0) - down(1);
  cells.forEach((line, row) => line.forEach((cell, column) => {
    const text = `${sizeText(columns[column])} samples, ${sizeText(rows[row])} context tokens: ${timesText(cell.speedup)}`
      + (cell.standardFits && cell.bifurcatedFits ? "" : cell.bifurcatedFits ? ", only bifurcated fits"
        : cell.standardFits ? ", only standard fits" : ", neither fits");
    const none = !cell.bifurcatedFits;
    const group = element("g", { "data-speedup": cell.speedup },
      element("rect", {
        x: across(column), y: down(row + 1), width: cellWidth - 1, height: cellHeight - 1,
        fill: none ? style.pale : speedupColour(cell.speedup, most, style.lines),
      }),
      element("title", {}, text));
    if (cellWidth > 31) {
      const dark = !none && Math.abs(Math.log2(cell.speedup)) / Math.log2(most) > 0.6;
      group.append(element("text", {
        x: across(column) + cellWidth / 2, y: down(row + 1) + cellHeight / 2 + 4, "text-anchor": "middle",
        style: `font-size:11px;fill:${none ? style.grey : dark ? "#ffffff" : style.ink}`,
      }, none ? "–" : timesText(cell.speedup).slice(0, -1)));
    }
    group.addEventListener("click", () => pick(columns[column], rows[row]));
    group.addEventListener("pointerenter", () => box.say(text));
    svg.append(group);
  }));
  svg.style.cursor = "pointer";
  svg.addEventListener("pointerleave", () => box.say(""));
  const edges = (inside) => {
    const path = [];
    cells.forEach((line, row) => line.forEach((cell, column) => {
      const own = inside(cell);
      if (column + 1 < columns.length && inside(line[column + 1]) !== own) path.push(`M${across(column + 1)} ${down(row)}V${down(row + 1)}`);
      if (row + 1 < rows.length && inside(cells[row + 1][column]) !== own) path.push(`M${across(column)} ${down(row + 1)}H${across(column + 1)}`);
    }));
    return path.join("");
  };
  const frontiers = [
    { name: "starts to pay", path: edges((cell) => cell.speedup > 1), colour: style.ink, dash: "" },
    { name: "standard out of memory", path: edges((cell) => cell.standardFits), colour: style.lines.standard.colour, dash: "6 4" },
    { name: "bifurcated out of memory", path: edges((cell) => cell.bifurcatedFits), colour: style.lines.bifurcated.colour, dash: "2 3" },
  ].filter((frontier) => frontier.path);
  for (const { path, colour, dash } of frontiers) {
    svg.append(
      element("path", { d: path, fill: "none", stroke: "#ffffff", "stroke-width": 5 }),
      element("path", { d: path, fill: "none", stroke: colour, "stroke-width": 2.5, "stroke-dasharray": dash }),
    );
  }
  columns.forEach((value, column) => {
    if (cellWidth > 31 || column % 2 === 0) {
      svg.append(element("text", { x: across(column) + cellWidth / 2, y: inner.bottom + 15, "text-anchor": "middle" }, sizeText(value)));
    }
  });
  rows.forEach((value, row) => {
    svg.append(element("text", { x: inner.left - 6, y: down(row) - cellHeight / 2 + 4, "text-anchor": "end" }, sizeText(value)));
  });
  svg.append(
    element("text", { x: (inner.left + inner.right) / 2, y: height - 8, "text-anchor": "middle", class: "quiet" }, x.title),
    element("text", { x: 12, y: (inner.top + inner.bottom) / 2, "text-anchor": "middle", class: "quiet",
      transform: `rotate(-90 12 ${(inner.top + inner.bottom) / 2})` }, y.title),
  );
  const place = (values, value) => Math.min(values.length, Math.max(0, Math.log2(Math.max(value, values[0] / 2) / values[0]) + 0.5));
  svg.append(element("circle", {
    cx: across(place(columns, now.x)), cy: down(place(rows, now.y)), r: 7, fill: "none", stroke: "#ffffff", "stroke-width": 5,
  }), element("circle", {
    cx: across(place(columns, now.x)), cy: down(place(rows, now.y)), r: 7, fill: "none", stroke: style.ink, "stroke-width": 2.5, class: "now",
  }));
  box.draw(svg, legend([
    ...frontiers.map(({ name, colour, dash }) => ({ name, draw: [element("line", {
      x1: 0, x2: 26, y1: 6, y2: 6, stroke: colour, "stroke-width": 2.5, "stroke-dasharray": dash })] })),
    { name: "you are here", draw: [element("circle", { cx: 13, cy: 6, r: 4.5, fill: "none", stroke: style.ink, "stroke-width": 2 })] },
  ]), true);
}

/* ---- roofline ---- */

function roofChart(box, { roofs, points }) {
  const { style, width } = box;
  const xs = points.map((point) => point.x);
  const xDomain = [Math.min(0.5, ...xs) / 1.4, Math.max(2 * roofs[0].flops / roofs[0].bandwidth, ...xs) * 1.4];
  const ys = points.map((point) => point.y);
  const yDomain = [Math.min(...ys, xDomain[0] * roofs[0].bandwidth * 2) / 1.6, Math.max(...roofs.map((roof) => roof.flops)) * 1.6];
  const { svg, across, up, inner } = frame(box, {
    width, height: 330,
    x: { domain: xDomain, ticks: powers(xDomain, Math.floor(width / 52), 4), text: (tick) => (tick < 1 ? String(Number(tick.toPrecision(2))) : sizeText(tick)), title: "FLOP per byte moved" },
    y: { domain: yDomain, ticks: powers(yDomain, 8, 10), text: (tick) => siText(tick, "").replace(/\.0+|\s/g, ""), title: "FLOP/s" },
  });
  svg.append(element("clipPath", { id: "plot" }, element("rect", {
    x: inner.left, y: inner.top - 8, width: inner.right - inner.left, height: inner.bottom - inner.top + 8 })));
  for (const roof of roofs) {
    const ridge = roof.flops / roof.bandwidth;
    const path = [[xDomain[0], xDomain[0] * roof.bandwidth], [ridge, roof.flops], [xDomain[1], roof.flops]];
    svg.append(element("polyline", {
      points: path.map(([x, y]) => `${across(x)},${up(y)}`).join(" "), fill: "none", stroke: roof.colour,
      "stroke-width": 2, "stroke-dasharray": DASHES[roof.dash], "clip-path": "url(#plot)", class: "roof",
    }));
  }
  for (const point of points) {
    svg.append(marker(style.symbols[point.bound], across(point.x), up(point.y), point.large ? 6 : 3.2, {
      fill: point.large ? point.colour : "#ffffff", stroke: point.colour, "stroke-width": 1.8, class: "point",
    }));
    svg.lastChild.append(element("title", {}, point.text));
    svg.lastChild.addEventListener("pointerenter", () => box.say(point.text));
  }
  svg.addEventListener("pointerleave", () => box.say(""));
  const bounds = [...new Set(points.map((point) => point.bound))];
  const names = new Map(points.map((point) => [point.name, point]));
  box.draw(svg, legend([
    ...[...names.values()].map((point) => ({ name: point.name, draw: [
      element("circle", { cx: 13, cy: 6, r: point.large ? 5 : 3.5, fill: point.large ? point.colour : "#ffffff", stroke: point.colour, "stroke-width": 1.8 })] })),
    ...roofs.map((roof) => ({ name: roof.name, draw: [lineSwatch(roof)] })),
    ...bounds.map((bound) => ({ name: `${bound}-bound`, draw: [marker(style.symbols[bound], 13, 6, 3.2, { fill: style.grey })] })),
  ]), true);
}
