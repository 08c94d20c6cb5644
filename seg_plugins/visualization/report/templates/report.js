"use strict";
// Without scripts the page shows everything; they add sorting and the comparing slider.

function sortBy(table, column, direction) {
  const value = (row) => {
    const cell = row.cells[column];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const text = cell.textContent.trim();
    return text === "\u2013" ? null : text;
  };
  const compare = (a, b) => {
    // What has no value stays at the end in both directions.
    if (a === null || b === null) return (a === null) - (b === null);
    const order = typeof a === "number" && typeof b === "number"
      ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
    return direction * order;
  };
  const body = table.tBodies[0];
  const rows = Array.from(body.rows, (row) => [value(row), row]);
  rows.sort((a, b) => compare(a[0], b[0]));
  body.append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      // Numbers begin with the greatest, names with the first.
      const numeric = table.tBodies[0].querySelector(`td:nth-child(${column + 1})[data-value]`);
      const now = head.getAttribute("aria-sort");
      const first = numeric ? "descending" : "ascending";
      const other = numeric ? "ascending" : "descending";
      const next = now === first ? other : first;
      heads.forEach((h) => h.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", next);
      sortBy(table, column, next === "ascending" ? 1 : -1);
    });
  });
}

for (const box of document.querySelectorAll(".compare")) {
  const pictures = Array.from(box.parentElement.querySelectorAll("img[data-kind]"));
  if (pictures.length < 2) continue;
  const above = box.querySelector(".above");
  const below = box.querySelector(".below");
  const choose = (select, image, start) => {
    pictures.forEach((picture, i) => {
      const caption = picture.parentElement.querySelector("figcaption").textContent;
      select.add(new Option(caption, String(i), i === start, i === start));
    });
    const show = () => { image.src = pictures[Number(select.value)].src; };
    select.addEventListener("change", show);
    show();
  };
  choose(box.querySelector(".left"), above, Math.min(1, pictures.length - 2));
  choose(box.querySelector(".right"), below, Math.min(2, pictures.length - 1));
  const range = box.querySelector("input");
  const slide = () => box.style.setProperty("--at", `${range.value}%`);
  range.addEventListener("input", slide);
  slide();
  box.hidden = false;
}
