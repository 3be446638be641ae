"use strict";

// Nothing here is parsed as HTML: names become text, addresses become attributes.
function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function valueOf(row, column) {
  const cell = row.cells[column];
  if (!("value" in cell.dataset)) return cell.textContent.trim().toLowerCase();
  return cell.dataset.value === "" ? null : Number(cell.dataset.value);
}

// A click on a heading sorts, another one turns the order around.
function sortTable(table, column) {
  const headings = [...table.tHead.rows[0].cells];
  const isNumber = headings[column].classList.contains("number");
  const before = headings[column].getAttribute("aria-sort");
  const isAscending = before === null ? !isNumber : before === "descending";
  for (const heading of headings) heading.removeAttribute("aria-sort");
  headings[column].setAttribute("aria-sort", isAscending ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const [x, y] = [valueOf(a, column), valueOf(b, column)];
    if (x === null || y === null) return (x === null) - (y === null); // undefined ones last
    return (isAscending ? 1 : -1) * (isNumber ? x - y : x.localeCompare(y, undefined, { numeric: true }));
  });
  table.tBodies[0].append(...rows);
}

const tables = [...document.querySelectorAll("table.sortable")];

for (const table of tables) {
  table.tHead.addEventListener("click", (event) => {
    const heading = event.target.closest("th");
    if (heading) sortTable(table, heading.cellIndex);
  });
}

// One choice of methods for all tables.
function addMethodFilter() {
  const rows = tables.flatMap((table) => [...table.tBodies[0].rows]);
  const keyOf = (row) => row.dataset.papers + row.dataset.method;
  const methods = new Map(rows.map((row) => [keyOf(row), row.dataset]));
  if (methods.size < 2) return;
  const set = element("fieldset", { className: "methods" }, element("legend", {}, "methods shown"));
  const apply = () => {
    const shown = new Set([...set.querySelectorAll("input:checked")].map((box) => box.value));
    for (const row of rows) row.hidden = !shown.has(keyOf(row));
  };
  for (const [key, { method, papers, shown }] of methods) {
    const box = element("input", { type: "checkbox", value: key, checked: shown === "1" });
    set.append(element("label", {}, box, ` ${method}${papers === "1" ? " (paper)" : ""}`));
  }
  set.addEventListener("change", apply);
  tables[0].parentElement.before(set);
  apply();
}

addMethodFilter();
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
