/* Figures on two logarithmic axes: along a slider, and operations under the roofs. */

function lineChart(box, { series, now, target, x, y, unit, pick }) {
  const { style, width } = box;
  const points = series.flatMap((one) => one.points);
  const ends = (values, room) => [Math.min(...values) / room, Math.max(...values) * room];
  const limits = target ? [target] : [];
  const domain = ends([...points.map((point) => point.y), ...limits], 1.15);
  const xDomain = ends(points.map((point) => point.x), now ? 1 : 1.1);
  const { svg, across, up, inner } = frame(box, {
    height: 290,
    x: { domain: xDomain, ticks: powers(xDomain, Math.floor(width / 46)), ...x },
    y: { domain, ticks: powers(domain, 8), text: tickText, ...y },
  });
  const here = across(now);
  const pen = { stroke: style.ink, class: "now" };
  if (now) svg.append(segment([here, inner.top], [here, inner.bottom], pen));
  const aimed = { stroke: style.green, "stroke-width": 2, "stroke-dasharray": "12 4 2 4" };
  if (target) svg.append(segment([inner.left, up(target)], [inner.right, up(target)], aimed));
  const end = { fill: "none", stroke: style.ink, "stroke-width": 2 };
  for (const { line, points } of series) {
    const fitting = points.filter((point) => point.fits);
    const beyond = points.slice(Math.max(0, fitting.length - 1));
    const places = (some) => some.map((point) => [across(point.x), up(point.y)]);
    svg.append(curve(places(fitting), strokeOf(line)));
    svg.append(curve(places(beyond), { ...strokeOf(line), opacity: style.unfit_opacity }));
    for (const { x, y, bound, fits } of points.filter((point) => point.mark)) {
      const look = { fill: line.colour, opacity: fits ? 1 : style.unfit_opacity };
      svg.append(marker(style.symbols[bound], across(x), up(y), 3.2, look));
    }
    if (fitting.length && fitting.length < points.length) {
      const last = fitting.at(-1);
      svg.append(marker("x", across(last.x), up(last.y), 5, end));
    }
  }
  /* What the pointer is at is said under the figure; a click there is a choice. */
  const [first] = series;
  const nearest = (event) => {
    const drawn = svg.getBoundingClientRect();
    const wanted = across.inverse(((event.clientX - drawn.left) / drawn.width) * width);
    const distance = ({ x }) => Math.abs(Math.log(x / wanted));
    return closest(first.points, distance);
  };
  svg.addEventListener("pointermove", (event) => {
    const at = nearest(event);
    const texts = series.map(({ line, points }) => {
      const { text, fits } = points[at];
      return `${line.name} ${text}${fits ? "" : " (does not fit)"}`;
    });
    box.say(`${sizeText(first.points[at].value)} ${unit}: ${texts.join(", ")}`);
  });
  svg.addEventListener("click", (event) => pick(first.points[nearest(event)].value));
  svg.style.cursor = "pointer";
  const ended = series.some(({ points }) => points[0].fits && !points.at(-1).fits);
  box.draw(svg, [
    ...series.map(({ line }) => ({ name: line.name, draw: [lineSwatch(line)] })),
    ...limits.map((ms) => ({
      name: `target, ${significant(ms)} ms`,
      draw: [segment([0, 6], [26, 6], aimed)],
    })),
    ...boundKeys(points, style),
    ...(ended ? [{ name: "last that fits", draw: [marker("x", 13, 6, 4, end)] }] : []),
  ]);
}

function tickText(value) {
  return value >= 1 ? wholeText(value) : String(Number(value.toPrecision(2)));
}

function roofChart(box, { roofs, points }) {
  const { style, width } = box;
  const xs = points.map((point) => point.x);
  const ys = points.map((point) => point.y);
  const [lower] = roofs;
  const xDomain = [
    Math.min(0.5, ...xs) / 1.4,
    Math.max((2 * lower.flops) / lower.bandwidth, ...xs) * 1.4,
  ];
  const yDomain = [
    Math.min(...ys, xDomain[0] * lower.bandwidth * 2) / 1.6,
    Math.max(...roofs.map((roof) => roof.flops)) * 1.6,
  ];
  const { svg, across, up } = frame(box, {
    height: 330,
    x: {
      domain: xDomain,
      ticks: powers(xDomain, Math.floor(width / 52), 4),
      text: (tick) => (tick < 1 ? tickText(tick) : sizeText(tick)),
      title: "FLOP per byte moved",
    },
    y: {
      domain: yDomain,
      ticks: powers(yDomain, 8, 10),
      text: (tick) => siText(tick, "").replace(/\.0+|\s/g, ""),
      title: "FLOP/s",
    },
  });
  for (const roof of roofs) {
    const { flops, bandwidth } = roof;
    // From where it enters the figure, at its left side or from below.
    const start = Math.max(xDomain[0], yDomain[0] / bandwidth);
    const corners = [start, flops / bandwidth, xDomain[1]];
    const places = corners.map((x) => [across(x), up(Math.min(flops, x * bandwidth))]);
    svg.append(curve(places, strokeOf(roof, 2)));
  }
  const filled = ({ large, colour }) => ({
    fill: large ? colour : "var(--paper)",
    stroke: colour,
    "stroke-width": 1.8,
  });
  for (const point of points) {
    const [at, size] = [[across(point.x), up(point.y)], point.large ? 6 : 3.2];
    const drawn = marker(style.symbols[point.bound], ...at, size, filled(point));
    drawn.append(element("title", {}, point.text));
    drawn.addEventListener("pointerenter", () => box.say(point.text));
    svg.append(drawn);
  }
  const names = new Map(points.map((point) => [point.name, point]));
  box.draw(svg, [
    ...[...names.values()].map((point) => ({
      name: point.name,
      draw: [element("circle", { cx: 13, cy: 6, r: point.large ? 5 : 3.5, ...filled(point) })],
    })),
    ...roofs.map((roof) => ({ name: roof.name, draw: [lineSwatch(roof)] })),
    ...boundKeys(points, style),
  ]);
}
