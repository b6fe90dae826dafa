"use strict";
// One image large: photograph with map, map, mask; opacity, outlines, zoom, and the pixel under the pointer.

const viewer = document.getElementById("viewer"), opacity = document.getElementById("opacity"), contour = document.getElementById("contour");
const canvases = ["view-photo", "view-map", "view-mask"].map((id) => document.getElementById(id));
let current = null, parts = {}, zoom = 1, centre = [0.5, 0.5], place = 0;

async function openViewer(index) {
  place = index;
  current = shown[index];
  [zoom, centre] = [1, [0.5, 0.5]];
  const one = current, [photo, map, mask] = await Promise.all([decoded(one.photo), decoded(one.map), decoded(one.mask)]);
  if (one !== current) return; // the next one was asked for meanwhile
  parts = { photo };
  if (map) { const found = levels(map); Object.assign(parts, { map: coloured(found, false), clear: coloured(found, true), mapOutline: outline(found, 128) }); }
  if (mask) { const found = levels(mask); Object.assign(parts, { mask, maskOutline: outline(found, 128) }); }
  describe();
  if (!viewer.open) viewer.showModal();
  drawViews();
}

function describe() {
  document.getElementById("view-title").textContent = current.path;
  document.getElementById("view-text").textContent = `${t(verdict(current))} · ${t("score")} ${number(current.score, 6)} · ${current.defect} · ${current.size[1]} × ${current.size[0]} px`;
  document.getElementById("view-none").hidden = Boolean(current.photo);
  document.getElementById("mask-none").textContent = current.mask ? "" : t(current.label ? "mask_unknown" : "mask_empty");
}

function drawViews() {
  const { photo } = parts, ratio = photo ? photo.naturalHeight / photo.naturalWidth : 1;
  canvases.forEach((canvas, i) => {
    canvas.width = 512;
    canvas.height = Math.max(1, Math.round(512 * ratio));
    const context = canvas.getContext("2d"), [w, h] = [canvas.width, canvas.height];
    context.setTransform(zoom * w, 0, 0, zoom * h, w * (0.5 - zoom * centre[0]), h * (0.5 - zoom * centre[1])); // a unit square
    context.imageSmoothingEnabled = zoom < 6;
    const draw = (picture) => { if (picture) context.drawImage(picture, 0, 0, 1, 1); };
    if (i === 0) {
      draw(photo);
      context.globalAlpha = Number(opacity.value) / 100;
      draw(parts.clear);
      context.globalAlpha = 1;
    } else draw(i === 1 ? parts.map : parts.mask);
    if (!contour.checked || i === 2) return;
    context.lineWidth = 2 / (zoom * w);
    for (const [path, colour] of [[parts.mapOutline, "#ffffff"], [parts.maskOutline, "#56b4e9"]]) {
      if (!path) continue;
      context.strokeStyle = colour;
      context.stroke(path);
    }
  });
}

// Where the pointer is within the model's view of the image, from 0 to 1.
function under(event) {
  const box = event.currentTarget.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((at, axis) => centre[axis] + (at - 0.5) / zoom);
}

function setZoom(value, at = centre) {
  const next = Math.min(32, Math.max(1, value));
  centre = centre.map((old, axis) => at[axis] + (old - at[axis]) * zoom / next);
  zoom = next;
  const half = 0.5 / zoom;
  centre = centre.map((value) => Math.min(1 - half, Math.max(half, value)));
  drawViews();
}

function step(by) {
  if (shown[place + by]) openViewer(place + by);
}

for (const canvas of canvases) {
  canvas.addEventListener("pointermove", (event) => {
    const at = under(event), [height, width] = current.size, [a, b, c, d] = current.to_pixel; // x = a u + b, y = c v + d
    const x = Math.floor(a * at[0] + b), y = Math.floor(c * at[1] + d);
    const inside = x >= 0 && y >= 0 && x < width && y < height;
    document.getElementById("pixel").textContent = inside ? `x ${x}, y ${y}` : t("outside");
    if (event.buttons !== 1) return;
    const box = canvas.getBoundingClientRect();
    centre = [centre[0] - event.movementX / box.width / zoom, centre[1] - event.movementY / box.height / zoom];
    setZoom(zoom);
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    setZoom(zoom * (event.deltaY < 0 ? 1.25 : 0.8), under(event));
  }, { passive: false });
}
opacity.addEventListener("input", drawViews);
contour.addEventListener("change", drawViews);
document.getElementById("zoom-in").addEventListener("click", () => setZoom(zoom * 1.5));
document.getElementById("zoom-out").addEventListener("click", () => setZoom(zoom / 1.5));
document.getElementById("view-previous").addEventListener("click", () => step(-1));
document.getElementById("view-next").addEventListener("click", () => step(1));
document.getElementById("close").addEventListener("click", () => viewer.close());
viewer.addEventListener("keydown", (event) => {
  if (event.target === opacity) return; // its arrows move it
  const actions = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), "+": () => setZoom(zoom * 1.5), "-": () => setZoom(zoom / 1.5) };
  if (actions[event.key]) { event.preventDefault(); actions[event.key](); }
});
redraws.push(() => { if (viewer.open) describe(); });
