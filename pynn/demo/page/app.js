// Draws strokes, asks the server what they are, and shows the answer.

import { Layers } from "./layers.js";

const SIDE = 140; // pixels of a drawing as it is sent; the server has the same
const WIDTH = 0.085; // of the pen, as a share of the paper
const NEAR = 1 / 300; // of the paper: a point as near as that to the last one is left out
const KEY_STEP = 1 / 28; // of the paper, for each press of an arrow key
const QUIET_MS = 600; // of no new answer, before it is read out

const element = (id) => document.getElementById(id);
const [pad, paper, pen] = ["pad", "paper", "pen"].map(element);
const layers = new Layers(element("layers"));
const screen = pad.getContext("2d");
const sent = Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE })
  .getContext("2d", { willReadFrequently: true });

let strokes = []; // each a list of points [x, y] from 0 to 1
let stroke = null; // the one that is being drawn
let ink = ""; // its colour, asked for once: an answer from the style sheet takes long

// -- painting -----------------------------------------------------------------------------------------------------------

// All strokes, each in one go: where pieces overlap, their soft edges would add up to bumps.
function paint(context, colour) {
  const side = context.canvas.width;
  context.clearRect(0, 0, side, side);
  context.strokeStyle = context.fillStyle = colour;
  context.lineWidth = WIDTH * side;
  context.lineCap = context.lineJoin = "round";
  for (const points of strokes) {
    context.beginPath();
    if (points.length === 1) {
      context.arc(points[0][0] * side, points[0][1] * side, (WIDTH * side) / 2, 0, 2 * Math.PI);
      context.fill();
    } else {
      for (const [x, y] of points) context.lineTo(x * side, y * side);
      context.stroke();
    }
  }
}

function repaint() {
  paint(screen, ink);
}

function resize() {
  ink = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
  pad.width = pad.height = Math.round(pad.clientWidth * devicePixelRatio);
  repaint();
}

function pixels() {
  paint(sent, "#fff");
  const rgba = sent.getImageData(0, 0, SIDE, SIDE).data;
  const opacity = new Uint8Array(SIDE * SIDE);
  for (let i = 0; i < opacity.length; i++) opacity[i] = rgba[4 * i + 3];
  return opacity;
}

// -- strokes ------------------------------------------------------------------------------------------------------------

function begin(point, time) {
  stroke = [point];
  strokes.push(stroke);
  repaint();
  changed(time);
}

function extend(points, time) {
  const before = stroke.length;
  for (const [x, y] of points) {
    const [lastX, lastY] = stroke.at(-1);
    if (Math.hypot(x - lastX, y - lastY) > NEAR) stroke.push([x, y]);
  }
  if (stroke.length === before) return;
  repaint();
  changed(time);
}

function clear(time) {
  strokes = [];
  lift();
  repaint();
  changed(time);
}

function undo(time) {
  strokes.pop();
  lift();
  repaint();
  changed(time);
}

function lift() {
  stroke = null;
  showPen();
}

// -- mouse, finger, pen -------------------------------------------------------------------------------------------------

let pointer = null; // the one that draws; other fingers do not
// Where there is one, the event that does not wait for the next frame of the screen: 4 ms of the time to an answer.
const MOVED = "onpointerrawupdate" in window ? "pointerrawupdate" : "pointermove";

function place(event) {
  const box = pad.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

pad.addEventListener("pointerdown", (event) => {
  if (pointer !== null || event.button !== 0) return;
  pointer = event.pointerId;
  pad.setPointerCapture(pointer);
  paper.classList.remove("keyboard");
  begin(place(event), event.timeStamp);
});

pad.addEventListener(MOVED, (event) => {
  if (event.pointerId !== pointer || !stroke) return;
  const all = event.getCoalescedEvents?.() ?? [];
  extend((all.length ? all : [event]).map(place), event.timeStamp);
});

for (const name of ["pointerup", "pointercancel"]) {
  pad.addEventListener(name, (event) => {
    if (event.pointerId !== pointer) return;
    pointer = null;
    lift();
  });
}

// -- keyboard -----------------------------------------------------------------------------------------------------------

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const held = new Set(); // arrow keys; two of them move the pen aslant
let cursor = [0.5, 0.25];

pad.addEventListener("keydown", (event) => {
  const time = event.timeStamp;
  if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) undo(time);
  else if (event.ctrlKey || event.metaKey || event.altKey) return;
  else if (event.key in ARROWS) move(event.key, time);
  else if (event.key === " ") { if (!event.repeat) toggle(time); }
  else if (["Delete", "Backspace", "Escape"].includes(event.key)) clear(time);
  else return;
  event.preventDefault();
  if (pointer === null) paper.classList.add("keyboard");
  showPen();
});

pad.addEventListener("keyup", (event) => held.delete(event.key));

function move(key, time) {
  held.add(key);
  const inside = (value) => Math.min(Math.max(value, 0.03), 0.97);
  const shift = [...held].reduce(([x, y], name) => [x + ARROWS[name][0], y + ARROWS[name][1]], [0, 0]);
  cursor = cursor.map((value, i) => inside(value + KEY_STEP * shift[i]));
  if (stroke && pointer === null) extend([cursor], time);
}

function toggle(time) {
  if (pointer !== null) return;
  if (stroke) lift();
  else begin(cursor, time);
}

function showPen() {
  const down = stroke !== null && pointer === null;
  pen.classList.toggle("down", down);
  pen.style.transform = `translate(${cursor[0] * paper.clientWidth}px, ${cursor[1] * paper.clientHeight}px)`;
  const text = paper.classList.contains("keyboard") ? `Pen ${down ? "down" : "up"}` : "";
  if (element("pen-state").textContent !== text) element("pen-state").textContent = text;
}

pad.addEventListener("focus", () => {
  if (pad.matches(":focus-visible")) paper.classList.add("keyboard");
  showPen();
});
pad.addEventListener("blur", () => {
  held.clear();
  if (pointer === null) stroke = null;
  paper.classList.remove("keyboard");
  showPen();
});

// -- asking -------------------------------------------------------------------------------------------------------------

let since = null; // time of the first stroke that was not asked about yet
let asking = false;

function changed(time) {
  element("hint").hidden = strokes.length > 0;
  element("undo").disabled = element("clear").disabled = strokes.length === 0;
  since ??= time;
  if (!asking) ask();
}

async function ask() {
  asking = true;
  while (since !== null) {
    const start = since;
    since = null;
    if (strokes.length === 0) {
      showNothing();
      continue;
    }
    const answer = await question("/recognize", {
      method: "POST",
      headers: { "Content-Type": "application/octet-stream" },
      body: pixels(),
    });
    if (answer !== null && strokes.length > 0) {
      show(answer);
      element("latency").textContent = `Answered ${(performance.now() - start).toFixed(1)} ms after the stroke`;
    }
  }
  asking = false;
}

async function question(path, options) {
  const alert = element("alert");
  try {
    const response = await fetch(path, options);
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    alert.hidden = true;
    return answer;
  } catch (error) {
    alert.textContent = error instanceof TypeError
      ? "No answer: pynn demo has stopped. Start it again, then draw on."
      : `No answer: ${error.message}.`;
    alert.hidden = false;
    return null;
  }
}

// -- answers ------------------------------------------------------------------------------------------------------------

const rows = Array.from({ length: 10 }, (_, digit) => {
  const row = document.createElement("li");
  const [name, track, fill, share] = ["name", "track", "fill", "share"].map((kind) =>
    Object.assign(document.createElement("span"), { className: kind }));
  name.textContent = digit;
  track.append(fill);
  row.append(name, track, share);
  element("bars").append(row);
  return { row, fill, share };
});
let reading = 0;

const percent = (p) => `${Math.min(Math.round(100 * p), p < 0.995 ? 99 : 100)} %`;

function showShares(probabilities, digit) {
  probabilities.forEach((p, i) => {
    rows[i].fill.style.transform = `scaleX(${p})`;
    rows[i].share.textContent = percent(p);
    rows[i].row.classList.toggle("best", i === digit);
  });
}

function show({ digit, probabilities, image, layers: outputs }) {
  const sure = percent(probabilities[digit]);
  element("digit").textContent = digit;
  element("sure").textContent = sure;
  showShares(probabilities, digit);
  layers.show([image, ...outputs]);
  clearTimeout(reading);
  reading = setTimeout(() => { element("said").textContent = `This looks like ${digit}: ${sure}`; }, QUIET_MS);
}

function showNothing() {
  element("digit").textContent = "–";
  element("sure").textContent = "";
  element("latency").textContent = "\u00a0";
  showShares(rows.map(() => 0), null);
  layers.show(null);
  clearTimeout(reading);
  element("said").textContent = "";
}

// -- beginning ----------------------------------------------------------------------------------------------------------

element("clear").addEventListener("click", (event) => { clear(event.timeStamp); pad.focus(); });
element("undo").addEventListener("click", (event) => undo(event.timeStamp));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { resize(); layers.recolour(); });
new ResizeObserver(() => { resize(); showPen(); }).observe(pad);

showNothing();
const about = await question("/model", {});
if (about !== null) {
  const data = about.is_synthetic ? "synthetic digits" : about.dataset === "mnist" ? "MNIST" : about.dataset;
  element("about").textContent = `${about.model}, ${about.parameters.toLocaleString("en")} parameters, trained on ${data}`;
  if (about.is_synthetic) {
    element("notice").textContent = "This model has learned from synthetic digits, not from handwriting: expect mistakes.";
    element("notice").hidden = false;
  }
  layers.describe([{ name: "Input", shape: [1, 28, 28], unsigned: true }, ...about.layers]);
}
