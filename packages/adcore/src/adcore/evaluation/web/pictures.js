"use strict";
// Drawing an image's pictures: the photograph, its map in colours, outlines.

const STOPS = [[0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85], [227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164]]; // inferno
const COLOURS = Array.from({ length: 256 }, (_, level) => {
  const at = level / 255 * (STOPS.length - 1), i = Math.min(STOPS.length - 2, Math.floor(at));
  return STOPS[i].map((value, channel) => Math.round(value + (at - i) * (STOPS[i + 1][channel] - value)));
});

async function decoded(uri) {
  if (!uri) return null;
  const picture = new Image();
  picture.src = uri;
  try { await picture.decode(); } catch { return null; }
  return picture;
}

// The 8-bit values of a gray picture.
function levels(picture) {
  const [width, height] = [picture.naturalWidth, picture.naturalHeight];
  const context = el("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  return { width, height, values: Uint8Array.from({ length: width * height }, (_, i) => data[4 * i]) };
}

// A canvas of the map in colours; `clear`: low values let the photograph through.
function coloured({ width, height, values }, clear) {
  const canvas = el("canvas", { width, height }), context = canvas.getContext("2d"), image = context.createImageData(width, height);
  values.forEach((level, i) => image.data.set([...COLOURS[level], clear ? 255 * (level / 255) ** 0.75 : 255], 4 * i));
  context.putImageData(image, 0, 0);
  return canvas;
}

// The border between cells at or above `level` and the others, as a path in a unit square.
function outline({ width, height, values }, level) {
  const path = new Path2D(), inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && values[y * width + x] >= level;
  for (let y = 0; y <= height; y++) {
    for (let x = 0; x <= width; x++) {
      if (inside(x, y) !== inside(x - 1, y)) { path.moveTo(x / width, y / height); path.lineTo(x / width, (y + 1) / height); }
      if (inside(x, y) !== inside(x, y - 1)) { path.moveTo(x / width, y / height); path.lineTo((x + 1) / width, y / height); }
    }
  }
  return path;
}
