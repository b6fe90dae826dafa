"use strict";
// What every page shares: its data, the language, light and dark, and safe ways to make elements.

const DATA = JSON.parse(document.getElementById("data").textContent);
const TEXTS = JSON.parse(document.getElementById("texts").textContent);
const redraws = []; // called when the language or the colours change

function stored(key) {
  try { return localStorage.getItem("adcore-" + key); } catch { return null; } // a browser may forbid it for files
}

function store(key, value) {
  try { localStorage.setItem("adcore-" + key, value); } catch { /* the choice lasts as long as the page */ }
}

let language = stored("language") || (navigator.language.startsWith("ko") ? "ko" : "en");

// The text of a key, with {name} replaced by values.name.
function t(key, values = {}) {
  const entry = TEXTS[key];
  const text = entry ? entry[language] || entry.en : key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
}

// An element; children are elements or text, which stays text whatever it holds.
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

function svg(tag, attributes = {}, text = null) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== null) node.textContent = text;
  return node;
}

function number(value, digits = 4) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return String(Number(value.toPrecision(digits)));
}

function percent(part, whole) {
  return whole ? (100 * part / whole).toFixed(1) + " %" : "–";
}

function applyLanguage() {
  document.documentElement.lang = language;
  for (const node of document.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of document.querySelectorAll("[data-t-label]")) node.setAttribute("aria-label", t(node.dataset.tLabel));
  for (const node of document.querySelectorAll("[data-t-title]")) node.title = t(node.dataset.tTitle);
  for (const redraw of redraws) redraw();
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

if (["light", "dark"].includes(stored("theme"))) document.documentElement.dataset.theme = stored("theme");
document.getElementById("language").addEventListener("click", () => {
  language = language === "ko" ? "en" : "ko";
  store("language", language);
  applyLanguage();
});
document.getElementById("theme").addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  store("theme", theme);
});
