"use strict";
// The comparison: a leaderboard that can be sorted, and the ROC curves of one domain.

const LINES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8c564b", "#7f7f7f", "#b8860b", "#6a3d9a"];
const METHODS = [...new Set(DATA.curves.map((one) => one.method))];
const FIELDS = [...new Set(DATA.curves.map((one) => one.domain))];
const domainChoice = document.getElementById("roc-domain");
domainChoice.replaceChildren(...FIELDS.map((name, i) => el("option", { value: i, text: name })));
domainChoice.addEventListener("change", drawRoc);

function drawRoc() {
  if (!FIELDS.length) {
    replaceIn("roc-curves", el("p", { class: "soft", text: t("no_roc") }));
    return;
  }
  const plot = chart(t("roc_overlay"), [0, 1], [0, 1], 320, t("fpr"), t("tpr"));
  for (const one of DATA.curves.filter((curve) => curve.domain === FIELDS[Number(domainChoice.value)])) {
    const line = polyline(plot, one.points, "");
    line.style.stroke = LINES[METHODS.indexOf(one.method)];
    line.append(svg("title", {}, `${one.method}, ${one.seed}`));
  }
  replaceIn("roc-curves", plot.root);
  replaceIn("roc-legend", ...METHODS.map((name, i) => {
    const mark = el("span", { text: "■ " });
    mark.style.color = LINES[i];
    return el("li", {}, mark, name);
  }));
}

const leaders = document.getElementById("leaders"), [titles, ...rows] = leaders.rows;
[...titles.cells].forEach((cell, column) => cell.firstChild.addEventListener("click", () => {
  const down = cell.getAttribute("aria-sort") !== "descending";
  for (const other of titles.cells) other.removeAttribute("aria-sort");
  cell.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = (row) => row.cells[column].textContent;
  const compare = (a, b) => {
    const [x, y] = [parseFloat(value(a)), parseFloat(value(b))];
    return Number.isNaN(x) || Number.isNaN(y) ? value(a).localeCompare(value(b)) : x - y;
  };
  rows.sort((a, b) => (down ? -1 : 1) * compare(a, b));
  titles.after(...rows);
}));
redraws.push(drawRoc);
