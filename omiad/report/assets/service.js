// The page of the service: each photograph is a request of its own, and a few are under way at once.

const AT_ONCE = 4;
const MARKS = { defect: "✕ defect", "unknown product": "? unknown product", ok: "✓ ok",
  unreadable: "– unreadable", failed: "– no answer", waiting: "… waiting" };
const RANKS = Object.keys(MARKS);
const find = (id) => document.getElementById(id);
const [drop, files, list, viewer] = ["drop", "files", "gallery", "viewer"].map(find);
const [decision, order] = [find("decision"), find("order")];
const number = (score, digits) => String(Number(score.toPrecision(digits)));
const pause = (seconds) => new Promise((done) => { setTimeout(done, 1000 * seconds); });
let photographs = []; // { file, address, answer, card }
let waiting = [];
let underWay = 0;

async function ask(file) {
  const body = new FormData();
  body.append("photographs", file);
  const headers = find("token") ? { Authorization: `Bearer ${find("token").value}` } : {};
  for (;;) {
    const response = await fetch("/predict?overlay=true", { method: "POST", body, headers });
    const said = await response.json();
    if (response.ok) return said.photographs[0];
    if (response.status !== 429) throw new Error(said.error);
    await pause(Number(response.headers.get("Retry-After") ?? 1));
  }
}

async function work() {
  underWay += 1;
  while (waiting.length) {
    const photograph = waiting.shift();
    photograph.answer = await ask(photograph.file).catch((error) => ({ decision: "failed", error: error.message }));
    photograph.card = card(photograph);
    update();
  }
  underWay -= 1;
}

function add(given) {
  for (const file of given) {
    const photograph = { file, address: URL.createObjectURL(file), answer: { decision: "waiting" } };
    photograph.card = card(photograph);
    photographs.push(photograph);
    waiting.push(photograph);
  }
  update();
  while (underWay < AT_ONCE && underWay < waiting.length) work();
}

function rank({ answer }) {
  return RANKS.indexOf(answer.decision) - (answer.threshold ? 1 - 1 / (1 + answer.score / answer.threshold) : 0);
}

function update() {
  const fits = photographs.filter(({ answer }) => !decision.value || answer.decision === decision.value);
  if (order.value === "worst") fits.sort((a, b) => rank(a) - rank(b));
  list.replaceChildren(...fits.map((photograph) => photograph.card));
  const counts = RANKS.map((name) => [photographs.filter(({ answer }) => answer.decision === name).length, name]);
  find("count").textContent = counts.filter(([count]) => count).map((pair) => pair.join(" ")).join(", ");
}

function verdict({ score, threshold, p_value: p, error }) {
  if (error) return error;
  if (score === undefined) return "";
  const limit = threshold === null ? "" : ` ${score > threshold ? ">" : "≤"} ${number(threshold, 4)}, p = ${number(p, 2)}`;
  return `score ${number(score, 4)}${limit}`;
}

function box({ left, top, right, bottom }, [width, height]) {
  const made = element("span", { className: "box" });
  const parts = { left: left / width, top: top / height, width: (right - left) / width, height: (bottom - top) / height };
  for (const [side, part] of Object.entries(parts)) made.style[side] = `${part * 100}%`;
  return made;
}

// The pictures of a photograph: the file itself, and the overlay once there is one.
function pictures({ file, address, answer }) {
  const photo = element("img", { src: address, alt: `photograph ${file.name}` });
  photo.addEventListener("error", () => photo.replaceWith(element("span", { className: "empty" }, "this browser cannot show the file")));
  const boxes = (answer.regions ?? []).map((region) => box(region, answer.size));
  const overlay = answer.overlay
    ? element("img", { src: `data:image/png;base64,${answer.overlay}`, alt: `anomaly map over ${file.name}` })
    : element("span", { className: "empty" }, answer.decision === "waiting" ? "…" : "no overlay");
  return [[photo, ...boxes], [overlay]].map((layers) => {
    const fit = element("span", { className: "fit" }, ...layers);
    const aspect = answer.size ? answer.size[0] / answer.size[1] : 1;
    fit.style.aspectRatio = aspect;
    fit.style.width = `${Math.min(1, aspect) * 100}%`;
    return element("span", { className: "stack" }, fit);
  });
}

function card(photograph) {
  const { file, answer } = photograph;
  const mark = element("span", { className: "outcome" }, MARKS[answer.decision]);
  mark.dataset.outcome = answer.decision;
  const button = element("button", { type: "button", className: "item", title: file.name },
    element("span", { className: "pair" }, ...pictures(photograph)),
    element("span", { className: "what" }, mark, element("span", {}, answer.product ?? ""),
      element("span", { className: "line" }, verdict(answer)), element("span", { className: "name" }, file.name)));
  button.addEventListener("click", () => open(photograph));
  return element("li", {}, button);
}

function open(photograph) {
  const { file, answer } = photograph;
  find("viewer-title").textContent = file.name;
  find("verdict").textContent = `${MARKS[answer.decision]} ${answer.product ?? ""} ${verdict(answer)}`;
  find("panes").replaceChildren(...pictures(photograph));
  viewer.showModal();
}

for (const name of RANKS.slice(0, 4)) decision.append(new Option(name, name));
for (const control of [decision, order]) control.addEventListener("change", update);
files.addEventListener("change", () => {
  add(files.files);
  files.value = "";
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") add(event.dataTransfer.files);
  });
}
find("filters").addEventListener("submit", (event) => event.preventDefault());
find("clear").addEventListener("click", () => {
  for (const { address } of photographs) URL.revokeObjectURL(address);
  [photographs, waiting] = [[], []];
  update();
});
find("close").addEventListener("click", () => viewer.close());
viewer.addEventListener("click", (event) => {
  if (event.target === viewer) viewer.close();
});
