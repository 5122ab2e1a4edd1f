// Reads the patches of the maps: pointing shows a patch, a click or Enter keeps it, arrow keys move.
// Runs once; gradio gives `element`, which stays while its content is replaced, and `watch`.

let kept = null;

const numbers = () => {
  const root = element.querySelector(".gt-maps[data-tokens]");
  if (!root) return null;
  const bytes = Uint8Array.from(atob(root.dataset.tokens), (c) => c.charCodeAt(0));
  const [rows, columns] = root.dataset.grid.split(" ").map(Number);
  return {
    values: new Float32Array(bytes.buffer),
    rows,
    columns,
    box: root.dataset.box.split(" ").map(Number),
    labels: JSON.parse(root.dataset.labels),
  };
};

let now = numbers();

const show = (patch) => {
  const out = element.querySelector(".gt-readout");
  if (!out || !now) return;
  const hidden = patch === null || patch >= now.rows * now.columns;
  for (const cursor of element.querySelectorAll(".gt-cursor")) {
    cursor.hidden = hidden;
    if (hidden) continue;
    const [left, top, right, bottom] = now.box;
    const wide = (right - left) / now.columns;
    const high = (bottom - top) / now.rows;
    cursor.style.left = `${100 * (left + wide * (patch % now.columns))}%`;
    cursor.style.top = `${100 * (top + high * Math.floor(patch / now.columns))}%`;
    cursor.style.width = `${100 * wide}%`;
    cursor.style.height = `${100 * high}%`;
  }
  out.replaceChildren();
  if (hidden) return;
  const size = now.rows * now.columns;
  const row = Math.floor(patch / now.columns) + 1;
  const place = document.createElement("b");
  place.textContent = `Row ${row}, column ${(patch % now.columns) + 1}: `;
  out.append(place);
  const parts = now.labels.map((label, k) => {
    const map = now.values.subarray(k * size, (k + 1) * size);
    const largest = map.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const share = largest > 0 ? Math.round((100 * map[patch]) / largest) : 0;
    return `${label} ${map[patch].toPrecision(3)} (${share}% of its largest)`;
  });
  out.append(parts.join(", "));
};

const patchAt = (picture, event) => {
  const frame = picture.getBoundingClientRect();
  const [left, top, right, bottom] = now.box;
  const x = ((event.clientX - frame.left) / frame.width - left) / (right - left);
  const y = ((event.clientY - frame.top) / frame.height - top) / (bottom - top);
  if (x < 0 || x >= 1 || y < 0 || y >= 1) return null;
  return Math.floor(y * now.rows) * now.columns + Math.floor(x * now.columns);
};

const pictureOf = (event) => now && event.target.closest(".gt-picture[tabindex]");

element.addEventListener("pointermove", (event) => {
  const picture = pictureOf(event);
  show(picture ? patchAt(picture, event) : kept);
});
element.addEventListener("pointerleave", () => show(kept));
element.addEventListener("click", (event) => {
  const picture = pictureOf(event);
  if (picture) show((kept = patchAt(picture, event)));
});
element.addEventListener("keydown", (event) => {
  const picture = pictureOf(event);
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  if (!picture) return;
  if (event.key === "Escape") show((kept = null));
  const step = steps[event.key];
  if (!step) return;
  event.preventDefault();
  if (kept === null) return show((kept = Number(picture.dataset.start)));
  const row = Math.floor(kept / now.columns) + step[0];
  const column = (kept % now.columns) + step[1];
  if (row < 0 || row >= now.rows || column < 0 || column >= now.columns) return;
  show((kept = row * now.columns + column));
});

watch("value", () => {
  now = numbers();
  show(kept);
});
