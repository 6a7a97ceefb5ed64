"use strict";

/* The speed-up over samples and context. */

/* Blue where bifurcated is faster, vermillion where standard is, white between; and black or white for
   a number on it, whichever stands out more. */
function speedupColours(speedup, most, lines) {
  const even = Math.abs(speedup - 1) < 0.02;
  const share = Math.min(1, Math.abs(Math.log2(speedup)) / Math.log2(most));
  const strength = even ? 0 : 0.1 + 0.9 * share;
  const end = speedup > 1 ? lines.bifurcated.colour : lines.standard.colour;
  const mixed = [1, 3, 5].map((at) => {
    const part = Number.parseInt(end.slice(at, at + 2), 16);
    return Math.round(255 + strength * (part - 255));
  });
  const linear = mixed.map((part) => {
    const value = part / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  const luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  return { fill: `rgb(${mixed})`, text: luminance > 0.179 ? "#000000" : "#ffffff" };
}

function heatMap(box, { columns, rows, cells, now, x, y, pick }) {
  const { style, width } = box;
  const height = 330;
  const inner = { left: 58, right: width - 8, top: 6, bottom: height - 42 };
  const across = (column) => inner.left + (column / columns.length) * (inner.right - inner.left);
  const down = (row) => inner.bottom - (row / rows.length) * (inner.bottom - inner.top);
  const svg = element("svg", {
    viewBox: `0 0 ${width} ${height}`,
    height,
    role: "img",
    "aria-label": box.label,
  });
  const most = Math.max(2, ...cells.flat().map((cell) => Math.max(cell.speedup, 1 / cell.speedup)));
  const cellWidth = across(1) - across(0);
  const cellHeight = down(0) - down(1);
  cells.forEach((line, row) =>
    line.forEach((cell, column) => {
      const text =
        `${sizeText(columns[column])} samples, ${sizeText(rows[row])} context tokens: ${timesText(cell.speedup)}` +
        (cell.standardFits && cell.bifurcatedFits
          ? ""
          : cell.bifurcatedFits
            ? ", only bifurcated fits"
            : cell.standardFits
              ? ", only standard fits"
              : ", neither fits");
      const none = !cell.bifurcatedFits;
      const colours = none
        ? { fill: style.pale, text: style.grey }
        : speedupColours(cell.speedup, most, style.lines);
      const group = element(
        "g",
        { "data-speedup": cell.speedup },
        element("rect", {
          x: across(column),
          y: down(row + 1),
          width: cellWidth - 1,
          height: cellHeight - 1,
          fill: colours.fill,
        }),
        element("title", {}, text),
      );
      if (cellWidth > 31) {
        group.append(
          element(
            "text",
            {
              x: across(column) + cellWidth / 2,
              y: down(row + 1) + cellHeight / 2 + 4,
              "text-anchor": "middle",
              style: `font-size:11px;fill:${colours.text}`,
            },
            timesText(cell.speedup).slice(0, -1),
          ),
        );
      }
      group.addEventListener("click", () => pick(columns[column], rows[row]));
      group.addEventListener("pointerenter", () => box.say(text));
      svg.append(group);
    }),
  );
  svg.style.cursor = "pointer";
  svg.addEventListener("pointerleave", () => box.say(""));
  const edges = (inside) => {
    const path = [];
    cells.forEach((line, row) =>
      line.forEach((cell, column) => {
        const own = inside(cell);
        if (column + 1 < columns.length && inside(line[column + 1]) !== own) {
          path.push(`M${across(column + 1)} ${down(row)}V${down(row + 1)}`);
        }
        if (row + 1 < rows.length && inside(cells[row + 1][column]) !== own) {
          path.push(`M${across(column)} ${down(row + 1)}H${across(column + 1)}`);
        }
      }),
    );
    return path.join("");
  };
  // The first is drawn last and thin, so that both are seen where they run together.
  const frontiers = [
    {
      name: "starts to pay",
      path: edges((cell) => cell.speedup > 1),
      colour: style.ink,
      dash: "",
      strength: 2,
    },
    {
      name: "standard out of memory",
      path: edges((cell) => cell.standardFits),
      colour: style.lines.standard.colour,
      dash: "6 4",
      strength: 5,
    },
    {
      name: "bifurcated out of memory",
      path: edges((cell) => cell.bifurcatedFits),
      colour: style.lines.bifurcated.colour,
      dash: "2 3",
      strength: 5,
    },
  ].filter((frontier) => frontier.path);
  const stroke = ({ colour, dash, strength }) => ({
    stroke: colour,
    "stroke-width": strength,
    "stroke-dasharray": dash,
  });
  for (const frontier of [...frontiers].reverse()) {
    svg.append(element("path", { d: frontier.path, fill: "none", ...stroke(frontier) }));
  }
  columns.forEach((value, column) => {
    if (cellWidth > 31 || column % 2 === 0) {
      svg.append(
        element(
          "text",
          { x: across(column) + cellWidth / 2, y: inner.bottom + 15, "text-anchor": "middle" },
          sizeText(value),
        ),
      );
    }
  });
  rows.forEach((value, row) => {
    svg.append(
      element(
        "text",
        { x: inner.left - 6, y: down(row) - cellHeight / 2 + 4, "text-anchor": "end" },
        sizeText(value),
      ),
    );
  });
  svg.append(...axisTitles(inner, height, x.title, y.title));
  const place = (values, value) =>
    Math.min(
      values.length,
      Math.max(0, Math.log2(Math.max(value, values[0] / 2) / values[0]) + 0.5),
    );
  const here = {
    x: across(place(columns, now.x)) - cellWidth / 2 - 0.5,
    y: down(place(rows, now.y)) - cellHeight / 2 - 0.5,
    width: cellWidth,
    height: cellHeight,
    fill: "none",
  };
  svg.append(
    element("rect", { ...here, stroke: "#ffffff", "stroke-width": 6 }),
    element("rect", { ...here, stroke: style.ink, "stroke-width": 3, class: "now" }),
  );
  box.draw(
    svg,
    legend([
      ...frontiers.map((frontier) => ({
        name: frontier.name,
        draw: [element("line", { x1: 0, x2: 26, y1: 6, y2: 6, ...stroke(frontier) })],
      })),
      {
        name: "you are here",
        draw: [
          element("rect", {
            x: 4,
            y: 1,
            width: 18,
            height: 10,
            fill: "none",
            stroke: style.ink,
            "stroke-width": 3,
          }),
        ],
      },
    ]),
    true,
  );
}
