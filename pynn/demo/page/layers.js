// Pictures of the activations of each layer.

const TALLEST = 240; // CSS pixels of a picture

export class Layers {
  constructor(container) {
    this.container = container;
    this.panels = [];
    this.texts = null; // what is shown, in base64
    this.recolour();
    new ResizeObserver(() => this.panels.forEach(fit)).observe(container);
  }

  describe(layers) {
    this.panels = layers.map((layer, i) => panel(layer, i === layers.length - 1));
    this.container.replaceChildren(...this.panels.map(({ figure }) => figure));
    this.show(this.texts);
    this.panels.forEach(fit);
  }

  // One text for each layer, or null for an empty drawing.
  show(texts) {
    this.texts = texts;
    this.panels.forEach((panel, i) => fill(panel, texts && atob(texts[i]), panel.unsigned ? this.unsigned : this.signed));
  }

  recolour() {
    const style = getComputedStyle(document.documentElement);
    const [zero, plus, minus] = ["--zero", "--plus", "--minus"].map((name) => parse(style.getPropertyValue(name)));
    this.unsigned = Uint32Array.from({ length: 256 }, (_, byte) => mix(zero, plus, byte / 255));
    this.signed = Uint32Array.from({ length: 256 }, (_, byte) =>
      byte < 128 ? mix(zero, plus, byte / 127) : mix(zero, minus, (256 - byte) / 127));
    this.show(this.texts);
  }
}

function panel({ name, shape, unsigned = false }, last) {
  const [maps, height, width] = shape.length === 3 ? shape : [1, ...grid(shape[0])];
  const columns = maps === 1 ? 1 : tiles(maps);
  const gap = 1;
  const canvas = document.createElement("canvas");
  canvas.width = columns * (width + gap) - gap;
  canvas.height = Math.ceil(maps / columns) * (height + gap) - gap;
  const text = shape.length === 3
    ? `${maps === 1 ? "" : `${maps} maps of `}${height}\u00a0×\u00a0${width}`
    : `${shape[0]} units${last ? ", one for each digit" : ""}`;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${name}: ${text}`);
  const figure = document.createElement("figure");
  figure.className = "card";
  const caption = document.createElement("figcaption");
  caption.append(
    Object.assign(document.createElement("b"), { textContent: name }),
    Object.assign(document.createElement("span"), { textContent: text }),
  );
  const frame = Object.assign(document.createElement("div"), { className: "map" });
  frame.append(canvas);
  figure.append(caption, frame);
  const context = canvas.getContext("2d");
  const data = context.createImageData(canvas.width, canvas.height); // transparent, as the gaps stay
  const out = new Uint32Array(data.data.buffer);
  const places = new Uint32Array(maps * height * width); // where in the picture each value goes
  let i = 0;
  for (let map = 0; map < maps; map++) {
    const top = Math.floor(map / columns) * (height + gap);
    const left = (map % columns) * (width + gap);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) places[i++] = (top + y) * canvas.width + left + x;
    }
  }
  const values = shape.reduce((a, b) => a * b);
  return { figure, frame, canvas, context, data, out, places, values, unsigned };
}

function fill({ context, data, out, places, values }, bytes, colours) {
  for (let i = 0; i < values; i++) out[places[i]] = colours[bytes ? bytes.charCodeAt(i) : 0];
  context.putImageData(data, 0, 0);
}

// The largest size at which each value has the same whole number of pixels of the screen.
function fit({ frame, canvas }) {
  const room = Math.min(frame.clientWidth / canvas.width, TALLEST / canvas.height, 40);
  const scale = Math.max(Math.floor(room * devicePixelRatio), 1) / devicePixelRatio;
  canvas.style.width = `${Math.min(canvas.width * scale, frame.clientWidth)}px`;
}

// Rows and columns for the units of a layer: a rectangle without holes, wider than high.
function grid(units) {
  if (units <= 16) return [1, units];
  let rows = Math.floor(Math.sqrt(units / 1.2));
  while (rows > 1 && units % rows) rows--;
  const columns = units / rows;
  return columns <= 6 * rows ? [rows, columns] : [Math.ceil(units / Math.ceil(Math.sqrt(units))), Math.ceil(Math.sqrt(units))];
}

// Columns for the maps of a layer: about a square, without holes if there is such a one.
function tiles(maps) {
  const side = Math.ceil(Math.sqrt(maps));
  for (let columns = side; columns <= 2 * side; columns++) if (maps % columns === 0) return columns;
  return side;
}

function parse(colour) {
  return [1, 3, 5].map((i) => parseInt(colour.trim().slice(i, i + 2), 16));
}

function mix(from, to, share) {
  const [r, g, b] = from.map((value, i) => Math.round(value + (to[i] - value) * share));
  return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
}
