"""What a page must be for all readers, as far as a browser can tell: names, headings, contrast."""

from typing import Any

# Each finding is a text. Contrast is that of WCAG 2.2, 1.4.3: 4.5 to 1, or 3 to 1 for large text.
_FAULTS = """() => {
  const found = [];
  const seen = (item) => item.getClientRects().length > 0
    && getComputedStyle(item).visibility !== "hidden";
  const all = (what) => [...document.querySelectorAll(what)].filter(seen);
  const say = (item, what) =>
    found.push(`${what}: ${item.outerHTML.slice(0, 90).replace(/\\s+/g, " ")}`);
  for (const item of all("input, select, textarea, button, a[href], summary, [role=region]")) {
    const labels = [...(item.labels || [])].map((label) => label.textContent).join("");
    if (!(labels || item.ariaLabel || item.textContent || item.title).trim()) say(item, "no name");
  }
  for (const item of all("svg")) {
    const hidden = item.closest("[aria-hidden=true]");
    if (!hidden && !(item.getAttribute("role") === "img" && item.ariaLabel)) say(item, "no role");
  }
  for (const item of all("th")) if (!item.scope) say(item, "no scope");
  let level = 0;
  for (const item of all("h1, h2, h3, h4")) {
    const next = Number(item.localName[1]);
    if (next > level + 1) say(item, `heading after h${level}`);
    level = next;
  }
  if (all("h1").length !== 1) found.push("not one h1");
  if (!document.documentElement.lang || !document.title) found.push("no language or title");
  const ids = [...document.querySelectorAll("[id]")].map((item) => item.id);
  if (new Set(ids).size !== ids.length) found.push("an id twice");
  for (const item of all(".scroll")) {
    if (item.scrollWidth > item.clientWidth + 1 && item.tabIndex < 0) say(item, "no focus");
  }
  const numbers = (colour) => (colour.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = colour.map((part) => {
      const value = part / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  /* What is painted under a text: a shape of its drawing, or the background of what holds it. */
  const under = (item) => {
    if (item.localName === "text") {
      const box = item.getBoundingClientRect();
      const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
      const shapes = [...item.ownerSVGElement.querySelectorAll("rect")].filter((shape) => {
        const its = shape.getBoundingClientRect();
        return getComputedStyle(shape).fill !== "none"
          && its.left < x && its.right > x && its.top < y && its.bottom > y;
      });
      if (shapes.length) return numbers(getComputedStyle(shapes.at(-1)).fill);
    }
    for (let at = item; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  for (const item of all("body *")) {
    const own = [...item.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || item.closest("option, title, :disabled, noscript")) continue;
    const style = getComputedStyle(item);
    const ink = numbers(item.localName === "text" ? style.fill : style.color).slice(0, 3);
    const [one, other] = [luminance(ink), luminance(under(item).slice(0, 3))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    const px = parseFloat(style.fontSize);
    const large = px >= 24 || (px >= 18.66 && Number(style.fontWeight) >= 700);
    if (contrast < (large ? 3 : 4.5)) say(item, `contrast ${contrast.toFixed(2)}`);
  }
  return [...new Set(found)].slice(0, 20);
}"""


def faults(page: Any) -> list[str]:
    """Return what keeps some readers from an open page: of names, roles, headings and contrast."""
    return list(page.evaluate(_FAULTS))
