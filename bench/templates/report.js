// Tables are sorted by a click on a column's title: numbers from the highest, again from the lowest, rows without a
// number last. Rows that sum up stay where they are.
"use strict";
for (const table of document.querySelectorAll("table")) {
  const body = table.querySelector("tbody:not(.total)");
  if (!body || body.rows.length < 2) continue;
  const first = [...body.rows];
  table.querySelectorAll("thead th").forEach((title, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...title.childNodes);
    title.append(button);
    button.addEventListener("click", () => {
      const order = title.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
      for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
      title.setAttribute("aria-sort", order);
      const sign = order === "descending" ? -1 : 1;
      // The first column is in the order of the configuration, which no alphabet knows.
      const value = (row) => (column ? row.cells[column].dataset.value : -first.indexOf(row));
      const rows = [...body.rows].sort((a, b) => {
        const [left, right] = [value(a), value(b)];
        if (left === undefined || right === undefined) return (left === undefined) - (right === undefined);
        return sign * (left - right) || first.indexOf(a) - first.indexOf(b);
      });
      body.append(...rows);
    });
  });
}
