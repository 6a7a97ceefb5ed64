"use strict";

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
  const ruled = (from, to, attributes) =>
    svg.append(element("path", { d: `M${from}L${to}`, stroke: style.ink, ...attributes }));
  if (now) {
    const here = across(now);
    ruled([here, inner.top], [here, inner.bottom], { class: "now" });
  }
  const aimed = { stroke: style.green, "stroke-width": 2, "stroke-dasharray": "12 4 2 4" };
  if (target) ruled([inner.left, up(target)], [inner.right, up(target)], aimed);
  const end = { stroke: style.ink, "stroke-width": 2 };
  for (const { line, points } of series) {
    const place = (point) => `${across(point.x).toFixed(1)},${up(point.y).toFixed(1)}`;
    const fitting = points.filter((point) => point.fits);
    const from = Math.max(0, fitting.length - 1);
    const drawn = { fill: "none", ...strokeOf(line) };
    svg.append(
      element("polyline", { points: fitting.map(place).join(" "), class: "fits", ...drawn }),
      element("polyline", {
        points: points.slice(from).map(place).join(" "),
        opacity: style.unfit_opacity,
        ...drawn,
      }),
    );
    for (const point of points) {
      if (!point.mark) continue;
      svg.append(
        marker(style.symbols[point.bound], across(point.x), up(point.y), 3.2, {
          fill: line.colour,
          opacity: point.fits ? 1 : style.unfit_opacity,
        }),
      );
    }
    if (fitting.length && fitting.length < points.length) {
      const last = fitting.at(-1);
      svg.append(
        marker("x", across(last.x), up(last.y), 5, { fill: "none", ...end }),
      );
    }
  }
  readout(
    box,
    svg,
    inner,
    (at) => {
      const wanted = across.inverse(at);
      const nearest = series[0].points.reduce(
        (best, point, index) =>
          Math.abs(Math.log(point.x / wanted)) <
          Math.abs(Math.log(series[0].points[best].x / wanted))
            ? index
            : best,
        0,
      );
      const texts = series.map(
        ({ line, points }) =>
          `${line.name} ${points[nearest].text}${points[nearest].fits ? "" : " (does not fit)"}`,
      );
      const { value } = series[0].points[nearest];
      return { value, text: `${sizeText(value)} ${unit}: ${texts.join(", ")}` };
    },
    pick,
  );
  box.draw(
    svg,
    legend([
      ...series.map(({ line }) => ({ name: line.name, draw: [lineSwatch(line)] })),
      ...limits.map((ms) => ({
        name: `target, ${significant(ms)} ms`,
        draw: [element("path", { d: "M0 6H26", ...aimed })],
      })),
      ...boundKeys(points, style),
      ...(series.some(({ points }) => points[0].fits && !points.at(-1).fits)
        ? [{ name: "last that fits", draw: [marker("x", 13, 6, 4, end)] }]
        : []),
    ]),
    true,
  );
}

function tickText(value) {
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

function roofChart(box, { roofs, points }) {
  const { style, width } = box;
  const xs = points.map((point) => point.x);
  const xDomain = [
    Math.min(0.5, ...xs) / 1.4,
    Math.max((2 * roofs[0].flops) / roofs[0].bandwidth, ...xs) * 1.4,
  ];
  const ys = points.map((point) => point.y);
  const yDomain = [
    Math.min(...ys, xDomain[0] * roofs[0].bandwidth * 2) / 1.6,
    Math.max(...roofs.map((roof) => roof.flops)) * 1.6,
  ];
  const { svg, across, up, inner } = frame(box, {
    height: 330,
    x: {
      domain: xDomain,
      ticks: powers(xDomain, Math.floor(width / 52), 4),
      text: (tick) => (tick < 1 ? String(Number(tick.toPrecision(2))) : sizeText(tick)),
      title: "FLOP per byte moved",
    },
    y: {
      domain: yDomain,
      ticks: powers(yDomain, 8, 10),
      text: (tick) => siText(tick, "").replace(/\.0+|\s/g, ""),
      title: "FLOP/s",
    },
  });
  svg.append(
    element(
      "clipPath",
      { id: "plot" },
      element("rect", {
        x: inner.left,
        y: inner.top - 8,
        width: inner.right - inner.left,
        height: inner.bottom - inner.top + 8,
      }),
    ),
  );
  for (const roof of roofs) {
    const ridge = roof.flops / roof.bandwidth;
    const path = [
      [xDomain[0], xDomain[0] * roof.bandwidth],
      [ridge, roof.flops],
      [xDomain[1], roof.flops],
    ];
    svg.append(
      element("polyline", {
        points: path.map(([x, y]) => `${across(x)},${up(y)}`).join(" "),
        fill: "none",
        ...strokeOf(roof, 2),
        "clip-path": "url(#plot)",
        class: "roof",
      }),
    );
  }
  const filled = ({ large, colour }) => ({
    fill: large ? colour : "var(--paper)",
    stroke: colour,
    "stroke-width": 1.8,
  });
  for (const point of points) {
    svg.append(
      marker(style.symbols[point.bound], across(point.x), up(point.y), point.large ? 6 : 3.2, {
        ...filled(point),
        class: "point",
      }),
    );
    svg.lastChild.append(element("title", {}, point.text));
    svg.lastChild.addEventListener("pointerenter", () => box.say(point.text));
  }
  svg.addEventListener("pointerleave", () => box.say(""));
  const names = new Map(points.map((point) => [point.name, point]));
  box.draw(
    svg,
    legend([
      ...[...names.values()].map((point) => ({
        name: point.name,
        draw: [element("circle", { cx: 13, cy: 6, r: point.large ? 5 : 3.5, ...filled(point) })],
      })),
      ...roofs.map((roof) => ({ name: roof.name, draw: [lineSwatch(roof)] })),
      ...boundKeys(points, style),
    ]),
    true,
  );
}
