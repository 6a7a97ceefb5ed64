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
  const svg = canvas(box, height);
  const most = Math.max(2, ...cells.flat().map((cell) => Math.max(cell.speedup, 1 / cell.speedup)));
  const cellWidth = across(1) - across(0);
  const cellHeight = down(0) - down(1);
  cells.forEach((line, row) =>
    line.forEach((cell, column) => {
      const { speedup, standardFits, bifurcatedFits } = cell;
      const fits = bifurcatedFits
        ? `${standardFits ? "" : ", only bifurcated fits"}`
        : `, ${standardFits ? "only standard" : "neither"} fits`;
      const place = `${sizeText(columns[column])} samples, ${sizeText(rows[row])} context tokens`;
      const text = `${place}: ${timesText(speedup)}${fits}`;
      const colours = bifurcatedFits
        ? speedupColours(speedup, most, style.lines)
        : { fill: style.pale, text: style.grey };
      const [x, y] = [across(column), down(row + 1)];
      const group = element(
        "g",
        { "data-speedup": speedup },
        rect(x, y, cellWidth - 1, cellHeight - 1, { fill: colours.fill }),
        element("title", {}, text),
      );
      if (cellWidth > 31) {
        const look = { style: `font-size:11px;fill:${colours.text}` };
        const number = timesText(speedup).slice(0, -1);
        group.append(textAt(x + cellWidth / 2, y + cellHeight / 2 + 4, number, "middle", look));
      }
      group.addEventListener("click", () => pick(columns[column], rows[row]));
      group.addEventListener("pointerenter", () => box.say(text));
      svg.append(group);
    }),
  );
  svg.style.cursor = "pointer";
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
  const { standard, bifurcated } = style.lines;
  const frontiers = [
    ["starts to pay", (cell) => cell.speedup > 1, style.ink, "", 2],
    ["standard out of memory", (cell) => cell.standardFits, standard.colour, "6 4", 5],
    ["bifurcated out of memory", (cell) => cell.bifurcatedFits, bifurcated.colour, "2 3", 5],
  ]
    .map(([name, inside, stroke, dash, strength]) => ({
      name,
      path: edges(inside),
      look: { stroke, "stroke-width": strength, "stroke-dasharray": dash },
    }))
    .filter((frontier) => frontier.path);
  for (const { path, look } of [...frontiers].reverse()) {
    svg.append(element("path", { d: path, fill: "none", ...look }));
  }
  columns.forEach((value, column) => {
    if (cellWidth > 31 || column % 2 === 0) {
      svg.append(textAt(across(column) + cellWidth / 2, inner.bottom + 15, sizeText(value)));
    }
  });
  rows.forEach((value, row) => {
    svg.append(textAt(inner.left - 6, down(row) - cellHeight / 2 + 4, sizeText(value), "end"));
  });
  svg.append(...axisTitles(inner, height, x.title, y.title));
  const place = (values, value) => {
    const at = Math.log2(Math.max(value, values[0] / 2) / values[0]) + 0.5;
    return Math.min(values.length, Math.max(0, at));
  };
  const left = across(place(columns, now.x)) - cellWidth / 2 - 0.5;
  const top = down(place(rows, now.y)) - cellHeight / 2 - 0.5;
  const framed = { fill: "none", stroke: style.ink, "stroke-width": 3 };
  for (const look of [{ stroke: "#ffffff", "stroke-width": 6 }, { class: "now" }]) {
    svg.append(rect(left, top, cellWidth, cellHeight, { ...framed, ...look }));
  }
  box.draw(svg, [
    ...frontiers.map(({ name, look }) => ({ name, draw: [segment([0, 6], [26, 6], look)] })),
    { name: "you are here", draw: [rect(4, 1, 18, 10, framed)] },
  ]);
}
