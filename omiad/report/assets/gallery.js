// The gallery.

const holder = document.getElementById("gallery-data");
if (holder) startGallery(JSON.parse(holder.textContent));

function startGallery(data) {
  const PAGE = 24;
  const MARKS = { "false alarm": "✕ false alarm", miss: "✕ miss", detected: "✓ detected", passed: "✓ passed",
    defect: "✕ defect", "unknown product": "? unknown product", "not calibrated": "", ok: "✓ ok" };
  const find = (id) => document.getElementById(id);
  const [form, list, more, viewer] = [find("filters"), find("gallery"), find("more"), find("viewer")];
  const { category, defect, outcome, order, truth, overlay } = form.elements;
  let shown = [];
  let room = PAGE;
  let current = 0;

  const run = () => Number(form.elements.run.value);
  const known = (table, name) => (Object.hasOwn(table, name) ? table[name] : null); // not "constructor"
  const number = (score) => String(Number(score.toPrecision(4)));

  function fill(select, options, fewest) {
    for (const [text, value] of options) select.append(new Option(text, value));
    select.closest("label").hidden = options.length < fewest;
  }

  const all = (values) => [["all", ""], ...values.map((value) => [value, value])];
  const distinct = (key) => all([...new Set(data.images.map((image) => image[key]))].sort());
  const outcomes = new Set(data.images.flatMap((image) => image.runs.map((r) => r?.outcome)));
  fill(form.elements.run, data.runs.map(({ name }, i) => [name, i]), 2);
  fill(category, distinct("category"), 3);
  fill(defect, distinct("defect"), 3);
  fill(outcome, all(Object.keys(MARKS).filter((name) => outcomes.has(name))), 3);

  function rank(image) {
    const { score, wrongness } = image.runs[run()];
    const isNormal = image.defect === "good";
    if (order.value === "alarms") return (isNormal ? 1e6 : 0) + wrongness;
    if (order.value === "misses") return (isNormal ? 0 : 1e6) + wrongness;
    return order.value === "score" ? score : wrongness;
  }

  function update() {
    const fits = (select, value) => !select.value || select.value === value;
    const ofRun = data.images.filter((image) => image.runs[run()]);
    shown = ofRun.filter((image) =>
      fits(category, image.category) && fits(defect, image.defect) && fits(outcome, image.runs[run()].outcome));
    if (order.value === "name") shown.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
    else shown.sort((a, b) => rank(b) - rank(a));
    for (const scale of document.querySelectorAll(".scale[data-run]")) scale.hidden = Number(scale.dataset.run) !== run();
    list.classList.toggle("hide-truth", !truth.checked);
    list.replaceChildren(...shown.slice(0, room).map(card));
    const left = Math.max(0, shown.length - room);
    const without = data.images.length - ofRun.length;
    const rest = without ? ` (this run kept no map of ${without})` : "";
    find("count").textContent = `${shown.length} of ${data.images.length} images${rest}`;
    more.hidden = left === 0;
    more.textContent = `Show ${Math.min(PAGE, left)} more of ${left}`;
  }

  const picture = (source, alt, className = "") => element("img", { src: source, alt, className, loading: "lazy" });
  const missing = (text) => element("span", { className: "empty" }, text);
  const photo = (image, alt, className) =>
    image.photo ? picture(image.photo, alt, className) : missing("photograph not found");
  const outline = (image) => image.mask && picture(image.mask, "", "truth");
  const boxes = (image) => (image.boxes ?? []).map(box);

  function box([left, top, right, bottom]) {
    const made = element("span", { className: "box truth" });
    const style = { left, top, width: right - left, height: bottom - top };
    for (const [side, part] of Object.entries(style)) made.style[side] = `${part * 100}%`;
    return made;
  }

  function stack(image, ...layers) {
    const fit = element("span", { className: "fit" }, ...layers.filter(Boolean));
    fit.style.aspectRatio = image.aspect;
    fit.style.width = `${Math.min(1, image.aspect) * 100}%`;
    return element("span", { className: "stack" }, fit);
  }

  function mapLayers(image, found, isOverlay) {
    const alt = `anomaly map, score ${number(found.score)}`;
    if (!isOverlay || !image.photo) return [picture(found.map, alt)];
    return [picture(image.photo, `overlay of the ${alt}`), picture(found.map, "", "over")];
  }

  function verdict(image, i) {
    const { score, threshold, p_value: p } = image.runs[i];
    if (data.judged) {
      const limit = known(data.runs[i].thresholds, image.category);
      return `score ${number(score)}${limit === null ? "" : ` ${score >= limit ? "≥" : "<"} ${number(limit)}`}`;
    }
    const limit = threshold === null ? "" : ` ${score > threshold ? ">" : "≤"} ${number(threshold)}, p = ${Number(p.toPrecision(2))}`;
    return `score ${number(score)}${limit}`;
  }

  function card(image, position) {
    const found = image.runs[run()];
    const label = data.judged ? `${image.category}, ${image.defect}` : image.name;
    const product = found.threshold ? element("span", {}, image.category) : "";
    const mark = element("span", { className: "outcome" }, MARKS[found.outcome]);
    mark.dataset.outcome = found.outcome;
    const map = mapLayers(image, found, overlay.checked);
    const button = element("button", { type: "button", className: "item", title: image.name },
      element("span", { className: "pair" }, stack(image, photo(image, `photograph of ${label}`), outline(image), ...boxes(image)), stack(image, ...map)),
      element("span", { className: "what" }, mark, product, element("span", { className: data.judged ? "" : "line" }, verdict(image, run())), element("span", { className: "name" }, label)));
    button.addEventListener("click", () => open(position));
    return element("li", {}, button);
  }

  function open(position) {
    current = (position + shown.length) % shown.length;
    const image = shown[current];
    const panes = [];
    const pane = (caption, layers, ...below) =>
      panes.push(element("figure", {}, stack(image, ...layers), ...below, element("figcaption", {}, caption)));
    const reference = known(data.references, image.category);
    if (reference) pane("normal reference", [picture(reference, "a normal image")]);
    pane("input", [photo(image, "the photograph"), ...boxes(image)]);
    if (data.judged) {
      const layers = image.has_mask ? [photo(image, "ground truth", "dim"), outline(image)] : [missing("no mask was drawn")];
      pane(image.defect === "good" ? "ground truth: no defect" : "ground truth", layers);
    }
    image.runs.forEach((found, i) => {
      const { name } = data.runs[i];
      if (!found) return pane(name, [missing("this run kept no map of it")]);
      if (found.reconstruction) pane(`${name}: reconstruction`, [picture(found.reconstruction, "reconstruction")]);
      const scale = [...document.querySelectorAll(`.scale[data-run="${i}"] > div`)].map((part) => part.cloneNode(true));
      const product = found.threshold ? `, ${image.category}` : "";
      pane(`${name}: ${verdict(image, i)} ${MARKS[found.outcome]}${product}`, mapLayers(image, found, false),
        element("div", { className: "scale" }, ...scale));
      return pane(`${name}: overlay`, [...mapLayers(image, found, true), ...boxes(image)]);
    });
    find("viewer-title").textContent = image.name;
    find("panes").replaceChildren(...panes);
    find("position").textContent = `${current + 1} of ${shown.length}`;
    if (!viewer.open) viewer.showModal();
  }

  form.addEventListener("change", () => {
    room = PAGE;
    update();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    room += PAGE;
    update();
    list.children[room - PAGE]?.querySelector("button").focus();
  });
  find("previous").addEventListener("click", () => open(current - 1));
  find("next").addEventListener("click", () => open(current + 1));
  find("close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") open(current + 1);
    if (event.key === "ArrowLeft") open(current - 1);
  });
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) viewer.close();
  });
  if (!data.judged) truth.closest("label").hidden = !data.images.some((image) => image.boxes.length);
  form.hidden = false;
  update();
}
