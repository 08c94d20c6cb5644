// What test_browser.py asks of a page.

// Luminance and contrast as WCAG 2 defines them; a background that is not set is that of a parent.
const contrasts = () => {
  const parts = (text) => (text.match(/[\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const [r, g, b, a = 1] = parts(getComputedStyle(e).backgroundColor);
      if (a > 0.99) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const text = "h1, h2, h3, h4, p, li, span, th, td, code, summary, figcaption, label";
  const found = [];
  for (const e of document.querySelectorAll(text)) {
    if (!e.textContent.trim() || !e.offsetParent || e.closest(".confusion")) continue;
    const [a, b] = [light(parts(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), e.tagName, e.textContent.trim().slice(0, 40)]);
  }
  return found;
};

// Boxes beside each other that share pixels, and those that stand out of their section.
const collisions = () => {
  const found = [];
  const box = (e) => e.getBoundingClientRect();
  for (const parent of document.querySelectorAll("main, .tiles, .tables, .charts, .pictures")) {
    const children = [...parent.children].filter((e) => box(e).width && box(e).height);
    children.forEach((a, i) => children.slice(i + 1).forEach((b) => {
      const [p, q] = [box(a), box(b)];
      const across = Math.min(p.right, q.right) - Math.max(p.left, q.left);
      const down = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
      if (across > 1 && down > 1) found.push(["overlap", a.outerHTML.slice(0, 80), b.outerHTML.slice(0, 80)]);
    }));
    for (const child of children) {
      if (box(child).right > box(parent).right + 1) found.push(["overflow", child.outerHTML.slice(0, 80)]);
    }
  }
  return found;
};
