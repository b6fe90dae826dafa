"use strict";
// All test images as tiles: filters, order, search, pages, keyboard.

const PER_PAGE = 48;
const ORDERS = {
  high: (a, b) => b.score - a.score,
  low: (a, b) => a.score - b.score,
  near: (a, b) => Math.abs(a.score - threshold) - Math.abs(b.score - threshold),
  name: (a, b) => (a.path < b.path ? -1 : 1),
};
const controls = Object.fromEntries(["show", "defect", "order", "search", "from", "to", "overlay"].map((id) => [id, document.getElementById(id)]));
const NAMES = new Map(IMAGES.map((one) => [one, one.path.toLowerCase()])); // searched at every key
let shown = [], page = 0, focused = 0, drawing = 0;

function matching() {
  const { show, defect, search, from, to } = controls;
  const words = search.value.toLowerCase(), low = from.value === "" ? -Infinity : Number(from.value), high = to.value === "" ? Infinity : Number(to.value);
  const kinds = { wrong: ["missed", "alarm"], right: ["found", "passed"] }[show.value] || [show.value];
  const name = defect.value === "" ? null : DEFECTS[Number(defect.value)];
  return IMAGES.filter((one) => (show.value === "all" || kinds.includes(verdict(one)))
    && (name === null || one.defect === name) && one.score >= low && one.score <= high && NAMES.get(one).includes(words));
}

function refresh(first = true) {
  shown = matching().sort(ORDERS[controls.order.value]);
  const pages = Math.max(1, Math.ceil(shown.length / PER_PAGE));
  page = first ? 0 : Math.min(page, pages - 1);
  focused = 0;
  const here = shown.slice(page * PER_PAGE, (page + 1) * PER_PAGE);
  document.getElementById("count").textContent = t("count", { shown: shown.length, all: IMAGES.length });
  document.getElementById("page").textContent = t("page", { page: page + 1, pages });
  document.getElementById("previous").disabled = page === 0;
  document.getElementById("next").disabled = page >= pages - 1;
  replaceIn("tiles", ...here.map((one, i) => el("li", {}, tile(one, page * PER_PAGE + i))));
  drawTiles(here);
}

function tile(one, index) {
  const result = verdict(one), wrong = result === "missed" || result === "alarm";
  const name = one.path.split("/").at(-1);
  const button = el("button", {
    type: "button", class: `tile ${wrong ? "wrong" : "right"}`, title: one.path, "data-verdict": result, tabindex: index % PER_PAGE === focused ? "0" : "-1",
    "aria-label": `${one.path}, ${t(result)}, ${t("score")} ${number(one.score)}`, onclick: () => openViewer(index),
  }, el("canvas", { width: 128, height: 128, "aria-hidden": "true" }), el("span", { class: wrong ? "bad" : "good", text: t(result) }), el("span", { text: `${number(one.score)} · ${one.defect}` }), el("span", { class: "soft", text: name }));
  return button;
}

async function drawTiles(here) {
  const run = ++drawing, canvases = [...document.querySelectorAll("#tiles canvas")];
  for (let i = 0; i < here.length && run === drawing; i++) { // one after another: the page answers in between
    const photo = await decoded(here[i].photo), map = controls.overlay.checked ? await decoded(here[i].map) : null;
    if (!photo || run !== drawing) continue;
    const canvas = canvases[i], scale = 160 / Math.max(photo.naturalWidth, photo.naturalHeight);
    canvas.width = Math.max(1, Math.round(photo.naturalWidth * scale));
    canvas.height = Math.max(1, Math.round(photo.naturalHeight * scale));
    const context = canvas.getContext("2d");
    context.drawImage(photo, 0, 0, canvas.width, canvas.height);
    if (map) context.drawImage(coloured(levels(map), true), 0, 0, canvas.width, canvas.height);
  }
}

// After a move of the threshold: the verdicts of the tiles that are there; filters by verdict choose again.
let waiting = 0;
followers.push(() => {
  clearTimeout(waiting);
  if (controls.show.value !== "all" || controls.order.value === "near") {
    waiting = setTimeout(() => refresh(false), 60);
    return;
  }
  document.querySelectorAll("#tiles .tile").forEach((old, i) => {
    const one = shown[page * PER_PAGE + i], result = verdict(one), wrong = result === "missed" || result === "alarm";
    if (old.dataset.verdict === result) return;
    old.dataset.verdict = result;
    old.className = `tile ${wrong ? "wrong" : "right"}`;
    old.children[1].textContent = t(result);
    old.children[1].className = wrong ? "bad" : "good";
    old.setAttribute("aria-label", `${one.path}, ${t(result)}, ${t("score")} ${number(one.score)}`);
  });
});

function turn(by) {
  page += by;
  refresh(false);
  document.getElementById("gallery").scrollIntoView();
}

document.getElementById("previous").addEventListener("click", () => turn(-1));
document.getElementById("next").addEventListener("click", () => turn(1));
for (const [id, control] of Object.entries(controls)) {
  control.addEventListener(["search", "from", "to"].includes(id) ? "input" : "change", () => refresh());
}
document.getElementById("tiles").addEventListener("keydown", (event) => {
  const tiles = [...document.querySelectorAll("#tiles .tile")], at = tiles.indexOf(document.activeElement);
  if (at < 0) return;
  const top = (one) => one.getBoundingClientRect().top, columns = tiles.filter((one) => top(one) === top(tiles[0])).length;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -at, End: tiles.length - 1 - at };
  if (!(event.key in steps) || !tiles[at + steps[event.key]]) return;
  event.preventDefault();
  tiles[at].tabIndex = -1;
  tiles[at + steps[event.key]].tabIndex = 0;
  tiles[at + steps[event.key]].focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || ["INPUT", "SELECT"].includes(document.activeElement.tagName)) return;
  event.preventDefault();
  controls.search.focus();
});

redraws.push(() => {
  const chosen = controls.defect.value;
  controls.defect.replaceChildren(el("option", { value: "", text: t("every_type") }), ...DEFECTS.map((name, i) => el("option", { value: i, text: name })));
  controls.defect.value = chosen;
  refresh(false);
});
