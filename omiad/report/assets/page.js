"use strict";

// Tables: a click on a heading sorts, another one turns the order around.

function valueOf(row, column) {
  const cell = row.cells[column];
  if (!("value" in cell.dataset)) return cell.textContent.trim().toLowerCase();
  return cell.dataset.value === "" ? null : Number(cell.dataset.value);
}

function sortTable(table, column) {
  const heading = table.tHead.rows[0].cells[column];
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const isNumber = heading.classList.contains("number");
  const before = heading.getAttribute("aria-sort");
  const first = isNumber ? "descending" : "ascending";
  const order = before === null ? first : before === "ascending" ? "descending" : "ascending";
  const sign = order === "ascending" ? 1 : -1;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
  rows.sort((a, b) => {
    const [x, y] = [valueOf(a, column), valueOf(b, column)];
    if (x === null || y === null) return (x === null) - (y === null); // undefined ones last
    return sign * (isNumber ? x - y : x.localeCompare(y, undefined, { numeric: true }));
  });
  body.append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
  table.tHead.addEventListener("click", (event) => {
    const heading = event.target.closest("th");
    if (heading) sortTable(table, heading.cellIndex);
  });
}

// One choice of methods for all tables.
function addMethodFilter(tables) {
  const rows = tables.flatMap((table) => [...table.tBodies[0].rows]);
  const keyOf = (row) => row.dataset.papers + row.dataset.method;
  const methods = new Map(rows.map((row) => [keyOf(row), row]));
  if (methods.size < 2) return;
  const set = element("fieldset", { className: "methods" }, element("legend", {}, "methods shown"));
  const apply = () => {
    const shown = new Set([...set.querySelectorAll("input:checked")].map((box) => box.value));
    for (const row of rows) row.hidden = !shown.has(keyOf(row));
  };
  for (const [key, row] of methods) {
    const isPapers = row.dataset.papers === "1";
    const checked = row.dataset.shown === "1";
    const box = element("input", { type: "checkbox", value: key, checked });
    set.append(element("label", {}, box, ` ${row.dataset.method}${isPapers ? " (paper)" : ""}`));
  }
  set.addEventListener("change", apply);
  tables[0].parentElement.before(set);
  apply();
}

addMethodFilter([...document.querySelectorAll("table.sortable")]);

// Nothing here is parsed as HTML: names become text, addresses become attributes.
function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});

for (const button of document.querySelectorAll("button[data-open]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const all = [...document.querySelectorAll(`#${button.dataset.open} details`)];
    const open = all.some((details) => !details.open);
    for (const details of all) details.open = open;
  });
}
