"use strict";
// Charts as SVG: axes, lines and the places of values.

const WIDTH = 560, LEFT = 46, RIGHT = 12, TOP = 22, BOTTOM = 34;

// A chart's root with axes; x(value) and y(value) give places within it.
function chart(label, xRange, yRange, height = 260, xTitle = "", yTitle = "") {
  const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${height}`, class: "chart", role: "img", "aria-label": label });
  const x = (v) => LEFT + (v - xRange[0]) / (xRange[1] - xRange[0] || 1) * (WIDTH - LEFT - RIGHT);
  const y = (v) => height - BOTTOM - (v - yRange[0]) / (yRange[1] - yRange[0] || 1) * (height - TOP - BOTTOM);
  for (let i = 0; i <= 4; i++) {
    const across = xRange[0] + (xRange[1] - xRange[0]) * i / 4, up = yRange[0] + (yRange[1] - yRange[0]) * i / 4;
    root.append(svg("text", { x: x(across), y: height - BOTTOM + 15, "text-anchor": i === 4 ? "end" : "middle" }, number(across, 3)));
    if (yTitle !== null) {
      root.append(svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(up), y2: y(up), class: "axis" }));
      root.append(svg("text", { x: LEFT - 6, y: y(up) + 4, "text-anchor": "end" }, number(up, 3)));
    }
  }
  root.append(svg("text", { x: (WIDTH + LEFT) / 2, y: height - 4, "text-anchor": "middle" }, xTitle));
  if (yTitle) root.append(svg("text", { x: LEFT, y: 12 }, yTitle));
  return { root, x, y, height };
}

function polyline(plot, points, name) {
  const step = Math.max(1, Math.floor(points.length / 2000)); // more points than pixels show nothing more
  const kept = points.filter((_, i) => i % step === 0 || i === points.length - 1);
  const line = svg("polyline", { points: kept.map(([a, b]) => `${plot.x(a)},${plot.y(b)}`).join(" "), class: "curve " + name });
  plot.root.append(line);
  return line;
}

function cut(plot, name) {
  const line = svg("line", { y1: TOP, y2: plot.height - BOTTOM, class: name });
  plot.root.append(line);
  return (value) => { line.setAttribute("x1", plot.x(value)); line.setAttribute("x2", plot.x(value)); };
}

function replaceIn(id, ...nodes) {
  document.getElementById(id).replaceChildren(...nodes);
}
