// The gallery.

const holder = document.getElementById("gallery-data");
if (holder) startGallery(JSON.parse(holder.textContent));

function startGallery(data) {
  const PAGE = 24;
  const MARKS = { "false alarm": "✕ false alarm", miss: "✕ miss", detected: "✓ detected", passed: "✓ passed", "not judged": "" };
  const list = document.getElementById("gallery");
  const form = document.getElementById("filters");
  const count = document.getElementById("count");
  const more = document.getElementById("more");
  const viewer = document.getElementById("viewer");
  let shown = [];
  let room = PAGE;
  let current = 0;

  const run = () => Number(form.elements.run.value);
  const known = (table, name) => (Object.hasOwn(table, name) ? table[name] : null); // not "constructor"
  const number = (score) => String(Number(score.toPrecision(4)));

  function fill(name, options) {
    const select = form.elements[name];
    for (const [text, value] of options) select.append(new Option(text, value));
    const isChoice = name === "run" ? options.length > 1 : options.length > 2;
    select.closest("label").hidden = !isChoice;
  }

  const all = (values) => [["all", ""], ...values.map((value) => [value, value])];
  const distinct = (key) => [...new Set(data.images.map((image) => image[key]))].sort();
  const outcomes = new Set(data.images.flatMap((image) => image.runs.map((r) => r?.outcome)));
  fill("run", data.runs.map(({ name }, i) => [name, i]));
  fill("category", all(distinct("category")));
  fill("defect", all(distinct("defect")));
  fill("outcome", all(Object.keys(MARKS).filter((outcome) => outcomes.has(outcome))));

  function rank(image) {
    const found = image.runs[run()];
    const isNormal = image.defect === "good";
    const order = form.elements.order.value;
    if (order === "alarms") return (isNormal ? 1e6 : 0) + found.wrongness;
    if (order === "misses") return (isNormal ? 0 : 1e6) + found.wrongness;
    return order === "score" ? found.score : found.wrongness;
  }

  function update() {
    const { category, defect, outcome, order } = form.elements;
    const fits = (select, value) => !select.value || select.value === value;
    shown = data.images.filter((image) => {
      const found = image.runs[run()];
      return found && fits(category, image.category) && fits(defect, image.defect) && fits(outcome, found.outcome);
    });
    if (order.value === "name") shown.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
    else shown.sort((a, b) => rank(b) - rank(a));
    for (const scale of document.querySelectorAll(".scale[data-run]")) scale.hidden = Number(scale.dataset.run) !== run();
    list.classList.toggle("hide-truth", !form.elements.truth.checked);
    list.replaceChildren(...shown.slice(0, room).map(card));
    const left = Math.max(0, shown.length - room);
    const without = data.images.filter((image) => !image.runs[run()]).length;
    const rest = without ? ` (this run kept no map of ${without})` : "";
    count.textContent = `${shown.length} of ${data.images.length} images${rest}`;
    more.hidden = left === 0;
    more.textContent = `Show ${Math.min(PAGE, left)} more of ${left}`;
  }

  function picture(source, alt, className = "") {
    return element("img", { src: source, alt, className, loading: "lazy" });
  }

  function stack(image, ...layers) {
    const fit = element("span", { className: "fit" }, ...layers.filter(Boolean));
    fit.style.aspectRatio = image.aspect;
    fit.style.width = `${Math.min(1, image.aspect) * 100}%`;
    return element("span", { className: "stack" }, fit);
  }

  function missing(text) {
    return element("span", { className: "empty" }, text);
  }

  function photo(image, alt, className) {
    return image.photo ? picture(image.photo, alt, className) : missing("photograph not found");
  }

  function truth(image) {
    return image.mask && picture(image.mask, "", "truth");
  }

  function mapLayers(image, found, isOverlay) {
    const alt = `anomaly map, score ${number(found.score)}`;
    if (!isOverlay || !image.photo) return [picture(found.map, alt)];
    return [picture(image.photo, `overlay of the ${alt}`), picture(found.map, "", "over")];
  }

  function verdict(image, i) {
    const found = image.runs[i];
    const limit = known(data.runs[i].thresholds, image.category);
    const sign = found.score >= limit ? "≥" : "<";
    return `score ${number(found.score)}${limit === null ? "" : ` ${sign} ${number(limit)}`}`;
  }

  function card(image, position) {
    const found = image.runs[run()];
    const label = data.judged ? `${image.category}, ${image.defect}` : image.name;
    const outcome = element("span", { className: "outcome" }, MARKS[found.outcome]);
    outcome.dataset.outcome = found.outcome;
    const map = mapLayers(image, found, form.elements.overlay.checked);
    const button = element("button", { type: "button", className: "item", title: image.name },
      element("span", { className: "pair" }, stack(image, photo(image, `photograph of ${label}`), truth(image)), stack(image, ...map)),
      element("span", { className: "what" }, outcome, element("span", {}, verdict(image, run())), element("span", { className: "name" }, label)));
    button.addEventListener("click", () => open(position));
    return element("li", {}, button);
  }

  function pane(caption, ...content) {
    return element("figure", {}, ...content, element("figcaption", {}, caption));
  }

  function scale(i) {
    const drawn = document.querySelector(`.scale[data-run="${i}"]`)?.cloneNode(true);
    return drawn ? [element("div", { className: "scale" }, ...[...drawn.children].slice(1))] : [];
  }

  function open(position) {
    current = (position + shown.length) % shown.length;
    const image = shown[current];
    const reference = known(data.references, image.category);
    const panes = [];
    if (reference) panes.push(pane("normal reference", stack(image, picture(reference, "a normal image"))));
    panes.push(pane("input", stack(image, photo(image, "the photograph"))));
    if (data.judged) {
      const layers = image.has_mask ? [photo(image, "ground truth", "dim"), truth(image)] : [missing("no mask was drawn")];
      panes.push(pane(image.defect === "good" ? "ground truth: no defect" : "ground truth", stack(image, ...layers)));
    }
    image.runs.forEach((found, i) => {
      const name = data.runs[i].name;
      if (!found) {
        panes.push(pane(name, stack(image, missing("this run kept no map of it"))));
        return;
      }
      if (found.reconstruction) panes.push(pane(`${name}: reconstruction`, stack(image, picture(found.reconstruction, "reconstruction"))));
      panes.push(pane(`${name}: ${verdict(image, i)} ${MARKS[found.outcome]}`, stack(image, ...mapLayers(image, found, false)), ...scale(i)));
      panes.push(pane(`${name}: overlay`, stack(image, ...mapLayers(image, found, true))));
    });
    document.getElementById("viewer-title").textContent = image.name;
    document.getElementById("panes").replaceChildren(...panes);
    document.getElementById("position").textContent = `${current + 1} of ${shown.length}`;
    if (!viewer.open) viewer.showModal();
  }

  form.addEventListener("change", () => {
    room = PAGE;
    update();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    const before = room;
    room += PAGE;
    update();
    list.children[before]?.querySelector("button").focus();
  });
  for (const [id, step] of [["previous", -1], ["next", 1]]) {
    document.getElementById(id).addEventListener("click", () => open(current + step));
  }
  document.getElementById("close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") open(current + 1);
    if (event.key === "ArrowLeft") open(current - 1);
  });
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) viewer.close();
  });
  if (!data.judged) {
    for (const option of [...form.elements.order.options].slice(0, 3)) option.remove();
    form.elements.truth.closest("label").hidden = true;
    form.elements.category.previousElementSibling.textContent = "folder";
  }
  form.hidden = false;
  update();
}
