"""The report in a real browser: it sorts, filters, enlarges, fits a phone and prints."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser
from PIL import Image
from synthetic import write_mvtec
from test_report import SIZE, altered, evaluated, page_of

from omiad.report import PredictionPage

HOSTILE = ('<img src=x onerror="alert(1)">', "'\"&amp; <b>", "ünïcode 漢字", "x<")
"""Names of categories."""

SCRIPT = "script><script>alert(2)<!--"
"""A file of this name in a folder "<" makes a path that would end a script."""

ATTACK = '"><img src=x onerror="pwned = 1"><script>pwned = 1</script>'
"""What a results.json from elsewhere may hold in place of any text or number."""

LONG = "a_name_without_a_space_" * 4
"""Name of a run or, after a digit, of a category; 92 letters."""

OVERFLOWING = """
  return [...document.querySelectorAll("main *")].filter((thing) => !thing.closest(".scroll > *")
    && thing.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map((thing) => thing.outerHTML.slice(0, 80));
"""


@pytest.fixture(scope="module")
def runs(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    out = tmp_path_factory.mktemp("runs")
    return [evaluated(mvtec_root, out / name, quality=q) for name, q in (("a", 2), ("b", 0.5))]


@pytest.fixture(scope="module")
def page(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page")
    page_of(runs, out)
    return out / "index.html"


@pytest.fixture(scope="module")
def long_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of teachers and a student whose names, and their categories', are long."""
    out = tmp_path_factory.mktemp("long")
    write_mvtec(out / "data", np.random.default_rng(0), categories=(f"1{LONG}", f"2{LONG}"))
    run = evaluated(out / "data", out / "run")
    models = (("AMDM", 0), ("AMDM", 1), ("OmiAD", 0), ("OmiAD", 1))
    runs = [
        altered(run, out / f"{kind}{seed}{LONG}", model={"kind": kind}, seed=seed)
        for kind, seed in models
    ]
    page_of(runs, out / "report")
    return out / "report" / "index.html"


@pytest.fixture(params=["page", "long_page"])
def any_page(request: pytest.FixtureRequest) -> Path:
    given: Path = request.getfixturevalue(request.param)
    return given


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(started: Browser) -> Iterator[Browser]:
    """A browser in which no page may have a problem, or ask for anything but itself."""
    started.problems.clear()
    started.requests.clear()
    yield started
    started.media("screen")
    assert started.problems == []
    assert {address.partition(":")[0] for address in started.requests} == {"file"}
    pages = {address for address in started.requests if "/pictures/" not in address}
    assert len(pages) == 1


def test_a_heading_sorts_its_table_both_ways(browser: Browser, page: Path) -> None:
    browser.open(page)
    (first, down), (second, up) = browser.run("""
      const table = document.querySelectorAll("table.sortable")[1];
      const heading = [...table.tHead.rows[0].cells].find((c) => c.textContent === "pixel AP");
      const column = () => [...table.tBodies[0].rows].map((row) =>
        Number(row.cells[heading.cellIndex].dataset.value));
      const orders = [];
      for (let i = 0; i < 2; i++) {
        heading.querySelector("button").click();
        orders.push([heading.getAttribute("aria-sort"), column()]);
      }
      return orders;
    """)
    assert (first, second) == ("descending", "ascending")
    assert len(set(down)) > 1
    assert down == sorted(down, reverse=True)
    assert up == sorted(up)


def test_a_method_can_be_left_out_of_the_tables(browser: Browser, page: Path) -> None:
    browser.open(page)
    before, after = browser.run("""
      const shown = () => document.querySelectorAll("table.figures tbody tr:not([hidden])").length;
      const before = shown();
      document.querySelector(".methods input").click();
      return [before, shown()];
    """)
    assert (before, after) == (6, 3)  # two methods on the mean and two categories


def test_filters_narrow_the_gallery_and_mistakes_come_first(browser: Browser, page: Path) -> None:
    browser.open(page)
    found = browser.run("""
      const form = document.getElementById("filters");
      const shown = () => [...document.querySelectorAll("#gallery .item")].map((item) =>
        [item.title, item.querySelector(".outcome").dataset.outcome]);
      const set = (name, value) => {
        form.elements[name].value = value;
        form.elements[name].dispatchEvent(new Event("change", { bubbles: true }));
      };
      const found = { all: shown() };
      set("category", "cable"); found.cable = shown();
      set("defect", "hole"); found.hole = shown();
      set("outcome", "detected"); found.detected = shown();
      set("category", ""); set("defect", ""); set("outcome", "");
      set("run", "1"); found.second = shown();
      set("order", "alarms"); found.alarms = shown();
      found.count = document.getElementById("count").textContent;
      return found;
    """)
    assert len(found["all"]) == 12
    assert len(found["cable"]) == 6
    assert len(found["hole"]) == 3
    assert all("cable/test/hole" in name for name, _ in found["hole"])
    assert {outcome for _, outcome in found["detected"]} == {"detected"}
    mistakes = [outcome in ("false alarm", "miss") for _, outcome in found["second"]]
    assert any(mistakes)
    assert mistakes == sorted(mistakes, reverse=True)
    assert ["good" in name for name, _ in found["alarms"]] == [True] * 6 + [False] * 6
    assert found["count"] == "12 of 12 images"


def test_a_picture_enlarges_and_escape_closes_it(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run('document.querySelector("#gallery .item").focus()')
    browser.press("Enter", 13)
    state = """
      const viewer = document.getElementById("viewer");
      const pictures = [...viewer.querySelectorAll("img")];
      await Promise.all(pictures.map((picture) => picture.decode()));
      return { open: viewer.open, title: document.getElementById("viewer-title").textContent,
               first: document.querySelector("#gallery .item").title,
               narrowest: Math.min(...pictures.map((picture) => picture.clientWidth)),
               captions: [...viewer.querySelectorAll("figcaption")].map((c) => c.textContent),
               focused: document.activeElement === document.querySelector("#gallery .item") };
    """
    opened = browser.run(state)
    assert opened["open"]
    assert opened["title"] == opened["first"]
    assert opened["narrowest"] > 150
    assert opened["captions"][:2] == ["normal reference", "input"]
    methods = browser.run('return document.querySelectorAll("fieldset.methods input").length')
    assert sum("overlay" in caption for caption in opened["captions"]) == max(1, methods)
    browser.press("ArrowRight", 39)
    assert browser.run(state)["title"] != opened["title"]
    browser.press("Escape", 27)
    closed = browser.run(state)
    assert not closed["open"]
    assert closed["focused"]


def test_what_the_viewer_shows_is_said(browser: Browser, runs: list[Path], tmp_path: Path) -> None:
    moved = altered(runs[0], tmp_path / "moved", root=str(tmp_path / "nowhere"))
    page_of([moved], tmp_path / "page")
    browser.open(tmp_path / "page" / "index.html")
    live, said, texts, scales = browser.run("""
      document.querySelector("#gallery .item").click();
      const live = document.getElementById("viewer-title").closest("[aria-live]");
      document.getElementById("next").click();
      const truth = [...document.querySelectorAll("#panes figure")].filter((pane) =>
        pane.textContent.includes("ground truth"));
      const texts = truth.map((pane) => pane.querySelector(".stack").textContent);
      const scales = document.querySelectorAll("#panes .ends").length;
      return [live.getAttribute("aria-live"), live.textContent, texts, scales];
    """)
    assert live == "polite"
    assert said.endswith("2 of 12")
    assert texts == ["photograph not found"]
    assert scales == 1


def test_a_dark_screen_prints_as_a_bright_one(browser: Browser, page: Path) -> None:
    browser.open(page)
    printed = []
    for scheme in ("light", "dark"):
        browser.media("print", scheme=scheme)
        colours = browser.run(r"""
          const names = document.querySelector("style").textContent.match(/--\w+(?=:)/g);
          const style = getComputedStyle(document.documentElement);
          return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(name)]));
        """)
        printed.append(colours)
    assert len(printed[0]) > 10
    assert printed[0] == printed[1]


def test_a_phone_scrolls_in_one_direction(browser: Browser, any_page: Path) -> None:
    browser.open(any_page, width=390, height=844)
    browser.run('for (const details of document.querySelectorAll("details")) details.open = true')
    size = browser.run("return [innerWidth, document.documentElement.scrollWidth]")
    assert size == [390, 390]
    assert browser.run(OVERFLOWING) == []
    browser.run('document.querySelector("#gallery .item").click()')
    wide = browser.run(
        'const v = document.getElementById("viewer");'
        "return [v.scrollWidth, v.clientWidth, v.getBoundingClientRect().right]"
    )
    assert wide[0] <= wide[1]
    assert wide[2] <= 390


def test_print_cuts_no_table(browser: Browser, any_page: Path, tmp_path: Path) -> None:
    browser.open(any_page)
    browser.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    browser.media("print")
    browser.resize(703, 1000)  # A4 without its margins
    assert browser.run(OVERFLOWING.replace('!thing.closest(".scroll > *")', "true")) == []
    widest, cells, texts = browser.run("""
      const box = (thing) => thing.getBoundingClientRect();
      const shown = (selector) => [...document.querySelectorAll(selector)].filter((thing) =>
        box(thing).width);
      const cut = (things) => things.map((thing) => thing.textContent.slice(0, 80));
      return [
        Math.max(...shown("table, svg.chart").map((thing) => box(thing).width)),
        cut(shown("th, td").filter((cell) => cell.scrollWidth > cell.clientWidth + 1)),
        cut(shown("svg.chart text").filter((text) => {
          const chart = box(text.closest("svg"));
          return box(text).right > chart.right + 1 || box(text).left < chart.left - 1;
        })),
      ];
    """)
    assert widest <= 703
    assert cells == texts == []
    closed = browser.run('return document.querySelectorAll("details:not([open])").length')
    assert closed == 0
    assert browser.run('return getComputedStyle(document.querySelector("nav")).display') == "none"


@pytest.mark.parametrize("where", ["embedded", "folder"])
def test_a_bright_map_hides_its_photograph_and_a_dark_one_does_not(
    browser: Browser, mvtec_root: Path, tmp_path: Path, where: str
) -> None:
    run = evaluated(mvtec_root, tmp_path / "run", quality=20)
    page_of([run], tmp_path / "page", f"--pictures={where}")
    browser.open(tmp_path / "page" / "index.html")
    left, top, side = browser.run("""
      const form = document.getElementById("filters");
      form.elements.overlay.click();
      form.elements.defect.selectedIndex = 2;
      form.elements.defect.dispatchEvent(new Event("change", { bubbles: true }));
      const stack = document.querySelectorAll("#gallery .item .stack")[1];
      await Promise.all([...stack.querySelectorAll("img")].map((image) => image.decode()));
      stack.scrollIntoView({ behavior: "instant", block: "center" });
      const box = stack.getBoundingClientRect();
      return [box.left, box.top, box.width];
    """)
    browser.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as picture:
        box = (left, top, left + side, top + side)
        shown = np.asarray(picture.convert("RGB").resize((SIZE, SIZE), box=box), dtype=float)
    bright = shown[9:15, 9:15].reshape(-1, 3)
    assert bright[:, :2].min() > 230
    assert bright[:, 2].max() < 190  # pale yellow, and nothing of the grey stripes
    dark = shown[20:30].reshape(-1, 3)
    assert np.ptp(dark, axis=1).mean() < 30  # grey
    assert np.ptp(shown[20:30].mean((0, 2))) > 60  # stripes


@pytest.fixture
def given_page(pytestconfig: pytest.Config) -> Path:
    page = pytestconfig.getoption("--report-page")
    if page is None:
        pytest.skip("no --report-page of a run was given")
    return Path(page)


def test_a_page_of_a_run_works(given_page: Path, browser: Browser, tmp_path: Path) -> None:
    test_a_phone_scrolls_in_one_direction(browser, given_page)
    test_print_cuts_no_table(browser, given_page, tmp_path)
    browser.media("screen")
    test_a_picture_enlarges_and_escape_closes_it(browser, given_page)
    before, after, outcomes, orders = browser.run("""
      const form = document.getElementById("filters");
      const count = () => Number(document.getElementById("count").textContent.split(" ")[0]);
      const before = count();
      form.elements.outcome.value = "miss";
      form.elements.outcome.dispatchEvent(new Event("change", { bubbles: true }));
      const heading = [...document.querySelectorAll("table.sortable")].at(-1).tHead.rows[0];
      const rows = heading.closest("table").tBodies[0].rows;
      const column = (i) =>
        [...rows].map(({ cells }) => cells[i].dataset.value ?? cells[i].textContent);
      const orders = [0, 0, 2, 2].map((i) => {
        heading.cells[i].querySelector("button").click();
        return [heading.cells[i].getAttribute("aria-sort"), column(i)];
      });
      const shown = [...document.querySelectorAll("#gallery .outcome")];
      return [before, count(), shown.map((outcome) => outcome.dataset.outcome), orders];
    """)
    assert after < before
    assert set(outcomes) <= {"miss"}
    assert [order for order, _ in orders] == ["ascending", "descending", "descending", "ascending"]
    first, last, *figures = (column for _, column in orders)
    assert first == last[::-1]
    assert first[0] < first[-1]
    down, up = ([float(figure) for figure in column if figure] for column in figures)
    assert down == sorted(down, reverse=True)
    assert up == sorted(up)


def test_names_are_text_and_never_markup(browser: Browser, tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_mvtec(root, np.random.default_rng(0), categories=HOSTILE, num_train=1, num_good=2,
                num_bad=1, defect="<")  # fmt: skip
    for category in HOSTILE:
        bad, mask = (root / category / name / "<" for name in ("test", "ground_truth"))
        (bad / "000.png").rename(bad / f"{SCRIPT}.png")
        (mask / "000_mask.png").rename(mask / f"{SCRIPT}_mask.png")
    page_of([evaluated(root, tmp_path / "run <b>&")], tmp_path / "report")
    browser.open(tmp_path / "report" / "index.html")
    found = browser.run("""
      const names = [...document.querySelectorAll("#gallery .item")].map((item) => item.title);
      document.querySelector("#gallery .item").click();
      return { names, scripts: document.scripts.length, bold: document.querySelector("h3 b"),
               rows: [...[...document.querySelectorAll("table.figures")].at(-1)
                 .querySelectorAll("th[scope=row]")].map((cell) => cell.textContent),
               foreign: document.querySelectorAll('img[src="x"]').length };
    """)
    assert len(found["names"]) == 12
    assert sorted(found["rows"]) == sorted(HOSTILE)
    assert sum(f"/{SCRIPT}" in name for name in found["names"]) == 4
    assert found["foreign"] == 0
    assert found["bold"] is None
    assert found["scripts"] == 2


def test_results_from_elsewhere_run_no_script(
    browser: Browser, runs: list[Path], tmp_path: Path
) -> None:
    texts = ("dataset", "protocol", "estimator", "checkpoint", "selected_on", "hardware")
    tables = ("protocol_steps", "protocol_changes", "versions", "notes")
    model = dict.fromkeys(("num_steps", "backbone", "image_size", "t_init", "maps"), ATTACK)
    hostile: dict[str, Any] = dict.fromkeys(texts, ATTACK) | {
        key: {ATTACK: ATTACK} for key in tables
    }
    latency = dict.fromkeys(("batch_size", "num_batches", "of"), ATTACK)
    hostile["latency"] = {**latency, "ms_per_image": 1.0}
    teacher, student = (
        altered(run, tmp_path / kind, **hostile, model={**model, "kind": kind})
        for run, kind in zip(runs, ("AMDM", "OmiAD"), strict=True)
    )
    page_of([teacher, student], tmp_path / "report")
    browser.open(tmp_path / "report" / "index.html")
    found = browser.run("""
      const foreign = document.querySelectorAll('img[src="x"], main script').length;
      const steps = [...document.querySelectorAll("thead th")].map((c) => c.textContent);
      return [typeof window.pwned, foreign, steps.filter((text) => text.includes("steps"))];
    """)
    columns = [f"{name}, {ATTACK} steps" for name in ("AMDM (teacher)", "OmiAD (student)")]
    assert found == ["undefined", 0, columns]


def test_a_page_runs_no_script_but_its_own(browser: Browser, page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    injected = tmp_path / "index.html"
    injected.write_text(
        text.replace("</main>", "<script>pwned = 1</script></main>"), encoding="utf-8"
    )
    browser.open(injected)
    assert browser.run("return typeof window.pwned") == "undefined"
    [problem] = browser.problems
    assert "Content Security Policy" in problem
    browser.problems.clear()


def test_a_folder_may_be_called_like_a_part_of_javascript(browser: Browser, tmp_path: Path) -> None:
    photograph = tmp_path / "photograph.png"
    Image.new("RGB", (8, 8)).save(photograph)
    made = PredictionPage(tmp_path / "page", scale=(0.0, 1.0), max_megabytes=1)
    names = [f"{folder}/a.png" for folder in ("constructor", "__proto__", "toString")]
    for name in names:
        pixels = np.zeros((8, 8, 3), np.uint8)
        made.add(name, path=photograph, pixels=pixels, anomaly_map=np.zeros((8, 8)), score=0.5)
    browser.open(made.write())
    found = browser.run("""
      const items = [...document.querySelectorAll("#gallery .item")];
      items[0].click();
      return { names: items.map((item) => item.title), scores: items.map((item) =>
                 item.querySelector(".what").textContent.includes("score 0.5")),
               panes: document.querySelectorAll("#panes figure").length };
    """)
    assert found == {"names": names, "scores": [True] * 3, "panes": 3}
