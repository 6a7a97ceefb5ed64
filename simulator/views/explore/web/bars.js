/* Stacked bars, one for each way to keep and read the context. */

function barChart(box, { rows, text, limit }) {
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
    const said = `${row.line.name}: ${text(totalOf(row))}${row.remark || ""}`;
    svg.append(lineSwatch(row.line, inner.left, top + 9));
    svg.append(element("text", { x: inner.left + 32, y: top + 13 }, said));
    let start = 0;
    for (const part of row.parts) {
      if (part.value <= 0) continue;
      const long = Math.max(0.5, across(start + part.value) - across(start));
      const title = element("title", {}, `${part.name}: ${text(part.value)}`);
      svg.append(rect(across(start), top + 18, long, 16, { fill: part.colour }, title));
      start += part.value;
    }
  });
  if (limit) {
    const at = across(limit.value);
    /* Over the bars alone: the texts between them stay clear of it. */
    const strokes = rows.map((_, index) => `M${at} ${index * rowHeight + 16}v20`).join("");
    const d = `${strokes}M${at} ${inner.bottom - 8}v10`;
    svg.append(element("path", { d, stroke: style.ink, "stroke-width": 2 }));
    svg.append(textAt(at, inner.bottom + 16, limit.text, at > width * 0.6 ? "end" : "start"));
  }
  const used = rows[0].parts.filter((_, at) => rows.some((row) => row.parts[at].value > 0));
  box.draw(
    svg,
    used.map(({ name, colour }) => ({ name, draw: [rect(6, 0, 14, 12, { fill: colour })] })),
    false,
  );
}
