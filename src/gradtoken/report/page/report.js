"use strict";
(() => {
  const get = (id) => document.getElementById(id);
  const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const numbers = (text) => text.split(" ").map(Number);
  const colours = { positive: bytes(document.body.dataset.positive), signed: bytes(document.body.dataset.signed) };
  const form = get("controls");
  const main = get("pictures");
  const entries = [...main.querySelectorAll(".entry")];
  const near = new Set();
  let look = null;

  const read = () => ({
    overlay: chosen("view") === "overlay",
    sign: chosen("sign"),
    opacity: Number(get("opacity").value),
    threshold: Number(get("threshold").value),
    shared: get("shared").checked,
  });

  // The same choices as gradtoken.display makes: see Style, normalised and overlay there.
  const blend = (pixels, at, red, green, blue, value, seen) => {
    const grey = (red + green + blue) / 3;
    if (!seen) {
      pixels.fill(0.5 * grey + 63.75, at, at + 3);
      return;
    }
    const size = Math.abs(value);
    const shown = size < look.threshold ? 0 : value;
    const weight = look.opacity * Math.sqrt(Math.abs(shown));
    const place = look.sign === "signed" ? (shown + 1) / 2 : shown;
    const colour = 3 * Math.min(255, Math.floor(place * 256));
    const map = colours[look.sign];
    const under = 0.4 * grey + 12.75;
    pixels[at] = (1 - weight) * (0.35 * red + under) + weight * map[colour];
    pixels[at + 1] = (1 - weight) * (0.35 * green + under) + weight * map[colour + 1];
    pixels[at + 2] = (1 - weight) * (0.35 * blue + under) + weight * map[colour + 2];
  };

  const tokensOf = (canvas) => {
    const raw = bytes(canvas.dataset.tokens);
    const step = Number(canvas.dataset.step);
    return Float64Array.from(new Int16Array(raw.buffer), (value) => value * step);
  };

  // Where each pixel lies among the tokens: its two neighbours and how far it is from the first.
  const axis = (length, from, to, low, high, tokens) => {
    const places = [];
    for (let pixel = from; pixel < to; pixel += 1) {
      const place = Math.min(Math.max(((pixel + 0.5 - low) / (high - low)) * tokens - 0.5, 0), tokens - 1);
      const first = Math.min(Math.floor(place), Math.max(tokens - 2, 0));
      places.push([first, Math.min(first + 1, tokens - 1), place - first]);
    }
    return places;
  };

  const spread = (tokens, entry, picture, width, height) => {
    const [rows, columns] = numbers(entry.dataset.grid);
    const scaleX = width / picture.naturalWidth;
    const scaleY = height / picture.naturalHeight;
    const box = numbers(entry.dataset.box).map((edge, i) => edge * (i % 2 ? scaleY : scaleX));
    const seen = numbers(entry.dataset.seen).map((edge, i) => Math.round(edge * (i % 2 ? scaleY : scaleX)));
    const xs = axis(width, seen[0], seen[2], box[0], box[2], columns);
    const ys = axis(height, seen[1], seen[3], box[1], box[3], rows);
    const values = new Float64Array(width * height);
    ys.forEach(([up, down, y], j) => xs.forEach(([left, right, x], i) => {
      const above = tokens[up * columns + left] * (1 - x) + tokens[up * columns + right] * x;
      const below = tokens[down * columns + left] * (1 - x) + tokens[down * columns + right] * x;
      values[(seen[1] + j) * width + seen[0] + i] = above * (1 - y) + below * y;
    }));
    return { values, seen };
  };

  const largest = (values) => {
    let found = 0;
    for (const value of values) found = Math.max(found, look.sign === "signed" ? Math.abs(value) : value);
    return found;
  };

  const draw = (entry, reduced = 1) => {
    const picture = entry.querySelector("img");
    if (!picture.complete) {
      picture.addEventListener("load", () => entry.wanted && draw(entry), { once: true });
      return;
    }
    const width = Math.max(1, Math.round(picture.naturalWidth * reduced));
    const height = Math.max(1, Math.round(picture.naturalHeight * reduced));
    const canvases = [...entry.querySelectorAll("canvas")];
    const maps = look.overlay ? canvases.map((canvas) => spread(tokensOf(canvas), entry, picture, width, height)) : [];
    const scales = maps.map((map) => largest(map.values));
    // Without positive evidence a map is not drawn in full colour; 0 where there is some.
    const fulls = canvases.map((canvas) => (look.sign === "signed" ? 0 : Number(canvas.dataset.full)));
    const shared = Math.max(0, ...scales.filter((_, k) => fulls[k] === 0));
    canvases.forEach((canvas, k) => {
      canvas.width = width;
      canvas.height = height;
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(picture, 0, 0, width, height);
      if (look.overlay) {
        const image = context.getImageData(0, 0, width, height);
        const { values, seen } = maps[k];
        const scale = fulls[k] > 0 ? Math.max(fulls[k], look.shared ? shared : 0) : look.shared ? shared : scales[k];
        for (let y = 0, at = 0; y < height; y += 1) {
          for (let x = 0; x < width; x += 1, at += 4) {
            const inside = x >= seen[0] && x < seen[2] && y >= seen[1] && y < seen[3];
            let value = scale > 0 ? Math.min(1, Math.max(-1, values[at / 4] / scale)) : 0;
            if (look.sign === "positive") value = Math.max(0, value);
            const data = image.data;
            blend(data, at, data[at], data[at + 1], data[at + 2], value, inside);
          }
        }
        context.putImageData(image, 0, 0);
      }
      canvas.dataset.drawn = JSON.stringify(look);
    });
  };

  const release = (entry) => {
    entry.wanted = false;
    for (const canvas of entry.querySelectorAll("canvas")) {
      canvas.width = 1;
      canvas.height = 1;
      delete canvas.dataset.drawn;
    }
  };

  const legend = () => {
    const canvas = get("legend");
    const context = canvas.getContext("2d");
    const image = context.createImageData(256, 14);
    image.data.fill(255);
    for (let at = 0; at < image.data.length; at += 4) {
      const place = ((at / 4) % 256) / 255;
      blend(image.data, at, 128, 128, 128, look.sign === "signed" ? 2 * place - 1 : place, true);
    }
    context.putImageData(image, 0, 0);
    get("low").textContent = look.sign === "signed" ? "against" : "0";
    get("high").textContent = look.sign === "signed" ? "for" : "for, largest of the map";
    if (look.shared && look.sign === "positive") get("high").textContent = "for, largest of the image";
  };

  const redraw = () => {
    look = read();
    legend();
    for (const entry of near) draw(entry);
  };

  const arrange = () => {
    const key = get("sort").value;
    const turn = get("reverse").checked ? -1 : 1;
    const words = get("find").value.trim().toLowerCase();
    const textual = key === "name" || key === "class";
    const value = (entry) => {
      const given = entry.dataset[key];
      if (textual) return given.toLowerCase();
      return given === "" ? null : Number(given);
    };
    const compare = (a, b) => {
      const [one, other] = [value(a), value(b)];
      if (one === null || other === null) return (one === null) - (other === null);
      const found = textual ? one.localeCompare(other, undefined, { numeric: true }) : one - other;
      return turn * found || a.dataset.order - b.dataset.order;
    };
    main.append(...[...entries].sort(compare));
    let shown = 0;
    for (const entry of entries) {
      const labels = [...entry.querySelectorAll("strong")].map((label) => label.textContent);
      const text = [entry.dataset.name, ...labels].join("\n").toLowerCase();
      entry.hidden = !text.includes(words);
      shown += entry.hidden ? 0 : 1;
    }
    get("count").textContent = `${shown} of ${entries.length} images`;
  };

  // What a patch says: under the pointer, or where arrow keys have moved to.
  const tell = (canvas, row, column) => {
    const entry = canvas.closest(".entry");
    const [rows, columns] = numbers(entry.dataset.grid);
    const [i, j] = [Math.min(Math.max(row, 0), rows - 1), Math.min(Math.max(column, 0), columns - 1)];
    canvas.patch = [i, j];
    const value = tokensOf(canvas)[i * columns + j];
    canvas.closest("figure").querySelector(".patch").textContent =
      `row ${i + 1}, column ${j + 1}: ${value.toPrecision(3)}`;
  };

  const under = (canvas, event) => {
    const entry = canvas.closest(".entry");
    const [rows, columns] = numbers(entry.dataset.grid);
    const [left, top, right, bottom] = numbers(entry.dataset.box);
    const area = canvas.getBoundingClientRect();
    const { naturalWidth, naturalHeight } = entry.querySelector("img");
    const zoom = Math.min(area.width / naturalWidth, area.height / naturalHeight);
    const x = (event.clientX - area.left) / zoom;
    const y = (event.clientY - area.top - (area.height - naturalHeight * zoom) / 2) / zoom;
    if (x < left || x >= right || y < top || y >= bottom) return;
    tell(canvas, Math.floor(((y - top) / (bottom - top)) * rows), Math.floor(((x - left) / (right - left)) * columns));
  };

  main.addEventListener("pointermove", (event) => {
    if (event.target.matches(".panels canvas")) under(event.target, event);
  });
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  main.addEventListener("keydown", (event) => {
    if (!event.target.matches(".panels canvas") || !(event.key in moves)) return;
    event.preventDefault();
    const [row, column] = event.target.patch || [0, 0];
    const [down, right] = event.target.patch ? moves[event.key] : [0, 0];
    tell(event.target, row + down, column + right);
  });

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    if (["find", "sort", "reverse"].includes(event.target.id)) arrange();
    else redraw();
  });

  const watch = new IntersectionObserver((changes) => {
    for (const { target, isIntersecting } of changes) {
      if (isIntersecting) {
        target.wanted = true;
        near.add(target);
        draw(target);
      } else if (near.delete(target)) release(target);
    }
  }, { rootMargin: "800px" });

  const most = 4e7;
  window.addEventListener("beforeprint", () => {
    watch.disconnect();
    let pixels = 0;
    for (const entry of entries) {
      const { naturalWidth, naturalHeight } = entry.querySelector("img");
      pixels += naturalWidth * naturalHeight * entry.querySelectorAll("canvas").length;
    }
    for (const entry of entries) {
      entry.wanted = true;
      draw(entry, Math.min(1, Math.sqrt(most / Math.max(pixels, 1))));
    }
  });
  const start = () => entries.forEach((entry) => watch.observe(entry));
  window.addEventListener("afterprint", start);

  for (const canvas of main.querySelectorAll("canvas")) canvas.style.aspectRatio = canvas.width / canvas.height;
  look = read();
  legend();
  arrange();
  start();
})();
