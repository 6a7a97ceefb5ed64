"use strict";

/* Stacked bars, one for each way to keep and read the context. */

function barChart(box, { rows, unit, limit }) {
  const { style, width } = box;
  const rowHeight = 46;
  const height = rows.length * rowHeight + (limit ? 26 : 4);
  const longest = Math.max(
    ...rows.map((row) => row.parts.reduce((sum, part) => sum + part.value, 0)),
    limit ? limit.value : 0,
  );
  const inner = { left: 4, right: width - 12, bottom: rows.length * rowHeight };
  const across = (value) => inner.left + (value / longest) * (inner.right - inner.left);
  const svg = element("svg", {
    viewBox: `0 0 ${width} ${height}`,
    height,
    role: "img",
    "aria-label": box.label,
  });
  rows.forEach((row, index) => {
    const top = index * rowHeight;
    const total = row.parts.reduce((sum, part) => sum + part.value, 0);
    svg.append(
      element("line", {
        x1: inner.left,
        x2: inner.left + 26,
        y1: top + 9,
        y2: top + 9,
        stroke: row.line.colour,
        "stroke-width": 2.5,
        "stroke-dasharray": DASHES[row.line.dash],
      }),
      element(
        "text",
        { x: inner.left + 32, y: top + 13 },
        `${row.line.name}: ${unit.text(total)}${row.remark || ""}`,
      ),
    );
    let start = 0;
    for (const part of row.parts) {
      if (part.value <= 0) continue;
      svg.append(
        element(
          "rect",
          {
            x: across(start),
            width: Math.max(0.5, across(start + part.value) - across(start)),
            y: top + 18,
            height: 16,
            fill: part.colour,
          },
          element("title", {}, `${part.name}: ${unit.text(part.value)}`),
        ),
      );
      start += part.value;
    }
  });
  if (limit) {
    const at = across(limit.value);
    /* Over the bars alone: the texts between them stay clear of it. */
    const strokes = rows.map((_, index) => `M${at} ${index * rowHeight + 16}v20`).join("");
    svg.append(
      element("path", {
        d: `${strokes}M${at} ${inner.bottom - 8}v10`,
        stroke: style.ink,
        "stroke-width": 2,
        class: "limit",
      }),
      element(
        "text",
        { x: at, y: inner.bottom + 16, "text-anchor": at > width * 0.6 ? "end" : "start" },
        limit.text,
      ),
    );
  }
  const used = rows[0].parts.filter((_, at) => rows.some((row) => row.parts[at].value > 0));
  box.draw(
    svg,
    legend(
      used.map(({ name, colour }) => ({
        name,
        draw: [element("rect", { x: 6, y: 0, width: 14, height: 12, fill: colour })],
      })),
    ),
    false,
  );
}
