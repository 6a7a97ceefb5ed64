"use strict";

/* Stacked bars, one for each way to keep and read the context. */

function barChart(box, { rows, unit, limit }) {
  const { style, width } = box;
  const rowHeight = 46;
  const height = rows.length * rowHeight + (limit ? 26 : 4);
  const totalOf = ({ parts }) => parts.reduce((sum, part) => sum + part.value, 0);
  const longest = Math.max(...rows.map(totalOf), limit ? limit.value : 0);
  const inner = { left: 4, right: width - 12, bottom: rows.length * rowHeight };
  const across = (value) => inner.left + (value / longest) * (inner.right - inner.left);
  const svg = canvas(box, height);
  rows.forEach((row, index) => {
    const top = index * rowHeight;
    const said = `${row.line.name}: ${unit.text(totalOf(row))}${row.remark || ""}`;
    svg.append(
      lineSwatch(row.line, inner.left, top + 9),
      element("text", { x: inner.left + 32, y: top + 13 }, said),
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
      textAt(at, inner.bottom + 16, limit.text, at > width * 0.6 ? "end" : "start"),
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
