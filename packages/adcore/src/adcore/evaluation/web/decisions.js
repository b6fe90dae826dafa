"use strict";
// The threshold and everything that follows it: counts, curves, verdicts.

const IMAGES = DATA.images; // path, defect, label (0 normal, 1 anomalous), score, and pictures where there are some
const sorted = (label) => Float64Array.from(IMAGES.filter((one) => one.label === label), (one) => one.score).sort();
const NORMAL = sorted(0), ANOMALOUS = sorted(1);
const LOWEST = IMAGES.reduce((a, one) => Math.min(a, one.score), Infinity);
const HIGHEST = IMAGES.reduce((a, one) => Math.max(a, one.score), -Infinity);
const MARKS = DATA.thresholds.filter((row, i, all) => row.value !== null && !(all[0].used && i && row.method === all[0].method && row.value === all[0].value));
const followers = []; // called with no argument when the threshold moved
let threshold = DATA.threshold ?? (LOWEST + HIGHEST) / 2;

// How many of the ascending scores are at or above the value.
function atOrAbove(scores, value) {
  let low = 0, high = scores.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (scores[middle] >= value) high = middle; else low = middle + 1;
  }
  return scores.length - low;
}

function counts(value = threshold) {
  const tp = atOrAbove(ANOMALOUS, value), fp = atOrAbove(NORMAL, value);
  return { tp, fp, fn: ANOMALOUS.length - tp, tn: NORMAL.length - fp };
}

// "found", "missed", "alarm" or "passed"
function verdict(one) {
  const flagged = one.score >= threshold;
  return one.label ? (flagged ? "found" : "missed") : (flagged ? "alarm" : "passed");
}

function setThreshold(value) {
  if (!Number.isFinite(value)) return;
  threshold = value;
  for (const follow of followers) follow();
}

function command() {
  return `adcore threshold model.safetensors --value ${threshold} --out recalibrated.safetensors`;
}

const slider = document.getElementById("slider"), exact = document.getElementById("exact");
slider.addEventListener("input", () => setThreshold(Number(slider.value)));
exact.addEventListener("change", () => setThreshold(exact.value === "" ? NaN : Number(exact.value)));
document.getElementById("copy").addEventListener("click", async () => {
  const field = document.getElementById("command");
  field.select();
  try { await navigator.clipboard.writeText(field.value); } catch { document.execCommand("copy"); } // files may lack the first
  document.getElementById("copied").textContent = t("copied");
});
const margin = (HIGHEST - LOWEST) * 0.02 || Math.abs(HIGHEST) * 0.01 || 0.01;
Object.assign(slider, { min: LOWEST - margin, max: HIGHEST + margin, step: "any", value: threshold });
slider.addEventListener("keydown", (event) => { // "any" has no step for the arrow keys
  const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
  if (!(event.key in steps)) return;
  event.preventDefault();
  const value = threshold + steps[event.key] * (HIGHEST - LOWEST || 1) / 200;
  setThreshold(Math.min(Number(slider.max), Math.max(Number(slider.min), value)));
});

function drawMarks() {
  const buttons = MARKS.map((row) => el("button", { type: "button", onclick: () => setThreshold(row.value) },
    `${row.method}${row.used ? " ★" : ""} ${number(row.value)}`));
  replaceIn("marks", ...buttons);
}

function drawHistogram() {
  const bins = 40, low = Number(slider.min), high = Number(slider.max);
  const count = (scores) => {
    const found = new Array(bins).fill(0);
    for (const score of scores) found[Math.min(bins - 1, Math.floor((score - low) / (high - low) * bins))]++;
    return found;
  };
  const normal = count(NORMAL), anomalous = count(ANOMALOUS), top = Math.max(1, ...normal, ...anomalous);
  const plot = chart(t("histogram"), [low, high], [0, top], 240, t("score"), t("images"));
  for (const [values, name] of [[normal, "normal"], [anomalous, "anomalous"]]) {
    const path = values.map((n, i) => {
      const [a, b] = [low + (high - low) * i / bins, low + (high - low) * (i + 1) / bins].map(plot.x);
      return `L${a} ${plot.y(n)} L${b} ${plot.y(n)}`;
    }).join(" ");
    plot.root.append(svg("path", { d: `M${plot.x(low)} ${plot.y(0)} ${path} L${plot.x(high)} ${plot.y(0)} Z`, class: "area " + name }));
  }
  for (const row of MARKS) {
    const line = svg("line", { x1: plot.x(row.value), x2: plot.x(row.value), y1: TOP, y2: plot.height - BOTTOM, class: "mark" });
    line.append(svg("title", {}, `${row.method} ${number(row.value)}`));
    plot.root.append(line);
  }
  const move = cut(plot, "cut");
  plot.root.addEventListener("click", (event) => {
    const box = plot.root.getBoundingClientRect(), at = (event.clientX - box.left) / box.width * WIDTH;
    setThreshold(low + Math.min(1, Math.max(0, (at - LEFT) / (WIDTH - LEFT - RIGHT))) * (high - low));
  });
  replaceIn("histogram", plot.root);
  return move;
}

// Every point of the ROC and the precision-recall curve, from the highest score down.
const CURVE = (() => {
  const all = [...new Set([...NORMAL, ...ANOMALOUS])].sort((a, b) => b - a);
  return all.map((value) => counts(value));
})();

function drawCurves() {
  const undefinedCurve = !NORMAL.length || !ANOMALOUS.length;
  const roc = chart("ROC", [0, 1], [0, 1], 300, t("fpr"), t("tpr"));
  const pr = chart(t("pr"), [0, 1], [0, 1], 300, t("recall"), t("precision"));
  const place = (plot) => {
    const dot = svg("circle", { r: 6, class: "anomalous" });
    plot.root.append(dot);
    return (x, y) => { dot.setAttribute("cx", plot.x(x)); dot.setAttribute("cy", plot.y(y)); };
  };
  if (undefinedCurve) {
    replaceIn("roc", el("p", { class: "soft", text: t("no_curve") }));
    replaceIn("pr", el("p", { class: "soft", text: t("no_curve") }));
    return () => {};
  }
  polyline(roc, [[0, 0], ...CURVE.map((c) => [c.fp / NORMAL.length, c.tp / ANOMALOUS.length])], "normal");
  polyline(pr, CURVE.map((c) => [c.tp / ANOMALOUS.length, c.tp / (c.tp + c.fp)]), "normal");
  const onRoc = place(roc), onPr = place(pr);
  replaceIn("roc", roc.root);
  replaceIn("pr", pr.root);
  return () => {
    const c = counts();
    onRoc(c.fp / NORMAL.length, c.tp / ANOMALOUS.length);
    onPr(c.tp / ANOMALOUS.length, c.tp + c.fp ? c.tp / (c.tp + c.fp) : 1);
  };
}

const DEFECTS = [...new Set(IMAGES.map((one) => one.defect))].sort();

function drawDefects() {
  const rows = DEFECTS.map((name) => IMAGES.filter((one) => one.defect === name));
  const height = TOP + BOTTOM + 26 * rows.length;
  const plot = chart(t("by_defect"), [Number(slider.min), Number(slider.max)], [0, rows.length], height, t("score"), null);
  rows.forEach((images, i) => {
    const step = Math.max(1, Math.floor(images.length / 400));
    for (let k = 0; k < images.length; k += step) {
      plot.root.append(svg("circle", { cx: plot.x(images[k].score), cy: TOP + 26 * i + 13 + (k * 7) % 9 - 4, r: 3, "fill-opacity": .5, class: images[k].label ? "anomalous" : "normal" }));
    }
    plot.root.append(svg("text", { x: 2, y: TOP + 26 * i + 8 }, DEFECTS[i].slice(0, 40)));
  });
  const move = cut(plot, "cut");
  replaceIn("by-defect", plot.root);
  return move;
}

function drawDefectTable() {
  const head = el("tr", {}, ...["defect", "images", "flagged", "share", "mean_score"].map((key) => el("th", { scope: "col", text: t(key) })));
  const rows = DEFECTS.map((name) => {
    const images = IMAGES.filter((one) => one.defect === name), flagged = images.filter((one) => one.score >= threshold).length;
    const mean = images.reduce((sum, one) => sum + one.score, 0) / images.length;
    return el("tr", {}, el("td", { class: "path", text: name }), ...[images.length, flagged, percent(flagged, images.length), number(mean)]
      .map((text) => el("td", { class: "num", text })));
  });
  replaceIn("defect-table", head, ...rows);
}

function drawLosses() {
  const keys = [...new Set(DATA.history.flatMap((row) => Object.keys(row)))].filter((key) => key !== "step");
  const plots = keys.slice(0, 8).map((key) => {
    const points = DATA.history.filter((row) => Number.isFinite(row[key])).map((row, i) => [row.step ?? i + 1, row[key]]);
    const values = points.map(([, value]) => value);
    if (points.length < 2) return null;
    const plot = chart(key, [points[0][0], points.at(-1)[0]], [Math.min(...values), Math.max(...values)], 220, t(DATA.history.find((row) => key in row).step === undefined ? "epoch" : "step"), "");
    polyline(plot, points, "normal");
    return el("figure", {}, el("figcaption", {}, el("b", { text: key })), plot.root);
  }).filter(Boolean);
  document.getElementById("losses-part").hidden = !plots.length;
  replaceIn("losses", ...plots);
}

let movers = [];
let saying = 0;

function follow() {
  const c = counts();
  slider.value = threshold;
  slider.setAttribute("aria-valuetext", number(threshold));
  if (document.activeElement !== exact) exact.value = String(threshold);
  for (const [id, value] of Object.entries(c)) document.getElementById("n-" + id).textContent = value;
  const precision = c.tp + c.fp ? c.tp / (c.tp + c.fp) : null, recall = ANOMALOUS.length ? c.tp / ANOMALOUS.length : null;
  document.getElementById("precision").textContent = precision === null ? "–" : precision.toFixed(3);
  document.getElementById("recall").textContent = recall === null ? "–" : recall.toFixed(3);
  document.getElementById("alarms").textContent = NORMAL.length ? `${c.fp} (${percent(c.fp, NORMAL.length)})` : "–";
  document.getElementById("command").value = command();
  document.getElementById("copied").textContent = "";
  clearTimeout(saying); // a screen reader hears the last value, not all on the way
  const sentence = t("sentence", { tp: c.tp, anomalous: ANOMALOUS.length, fn: c.fn, fp: c.fp, normal: NORMAL.length });
  saying = setTimeout(() => { document.getElementById("said").textContent = sentence; }, 400);
  for (const move of movers) move(threshold);
  drawDefectTable();
}

followers.push(follow);
redraws.push(() => {
  drawMarks();
  movers = [drawHistogram(), drawCurves(), drawDefects()];
  drawLosses();
  follow();
});
