"use strict";
// The same images as several models see them: a row an image, a column a method.

const sideChoice = document.getElementById("side-domain");
sideChoice.replaceChildren(...DATA.sides.map((one, i) => el("option", { value: i, text: one.domain })));
sideChoice.addEventListener("change", drawSides);

// A canvas with the photograph, in the colours of `map` where there is one, and the outline of `mask`.
async function pictured(canvas, photo, map, mask) {
  const [image, colours, region] = [await decoded(photo), await decoded(map), await decoded(mask)];
  if (!image) return;
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  if (colours) context.drawImage(coloured(levels(colours), true), 0, 0, canvas.width, canvas.height);
  if (!region) return;
  context.scale(canvas.width, canvas.height);
  context.lineWidth = 2 / canvas.width;
  context.strokeStyle = "#00e5ff";
  context.stroke(outline(levels(region), 128));
}

function verdictOf(flagged, label) {
  if (flagged === null) return null;
  return flagged ? (label ? "found" : "alarm") : (label ? "missed" : "passed");
}

function sideCell(image, seen) {
  const canvas = el("canvas", { width: 128, height: 128, class: "side", role: "img", "aria-label": image.path });
  pictured(canvas, image.photo, seen.map, image.mask);
  const result = verdictOf(seen.flagged, image.label), wrong = result === "missed" || result === "alarm";
  return el("td", {}, canvas, el("div", {}, el("span", { class: wrong ? "bad" : "good", text: result ? t(result) : "" }), ` ${number(seen.score)}`));
}

function drawSides() {
  const side = DATA.sides[Number(sideChoice.value)];
  if (!side) {
    replaceIn("sides", el("p", { class: "soft", text: t("no_sides") }));
    return;
  }
  const head = el("tr", {}, el("th", { scope: "col", text: t("image") }), ...side.methods.map((name) => el("th", { scope: "col", text: name })));
  const rows = side.images.map((image) => {
    const canvas = el("canvas", { width: 128, height: 128, class: "side", role: "img", "aria-label": image.path });
    pictured(canvas, image.photo, null, null);
    const first = el("th", { scope: "row", class: "path" }, canvas, el("div", { text: `${image.defect} · ${image.path.split("/").at(-1)}` }));
    return el("tr", {}, first, ...image.seen.map((seen) => sideCell(image, seen)));
  });
  replaceIn("sides", el("table", {}, head, ...rows));
}
redraws.push(drawSides);
