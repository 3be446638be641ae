"""The report in a real browser: it sorts, filters, enlarges, fits a phone and prints."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser
from PIL import Image
from results_of_others import evaluated
from synthetic import write_mvtec
from test_report import altered, page_of, small_data

from omiad.inspection import Decision, Inspection, Region
from omiad.products import Threshold
from omiad.report import PredictionPage, page_entry

pytestmark = pytest.mark.slow

HOSTILE = ('<img src=x onerror="alert(1)">', "'\"&amp; <b>", "ünïcode 漢字", "x<")
SCRIPT = "script><script>alert(2)<!--"  # in a folder "<", a path that would end a script
ATTACK = '"><img src=x onerror="pwned = 1"><script>pwned = 1</script>'
LONG = "a_name_without_a_space_" * 4

OVERFLOWING = """
  return [...document.querySelectorAll("main *")].filter((thing) => !thing.closest(".scroll > *")
    && !thing.closest("svg")
    && thing.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map((thing) => thing.outerHTML.slice(0, 80));
"""


@pytest.fixture(scope="module")
def page(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page")
    runs = [evaluated(mvtec_root, out / name, quality=q) for name, q in (("a", 2), ("b", 0.5))]
    page_of(runs, out)
    return out / "index.html"


@pytest.fixture(scope="module")
def long_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a teacher and its student whose names, and their categories', are long."""
    out = tmp_path_factory.mktemp("long")
    run = evaluated(small_data(out / "data", f"1{LONG}", f"2{LONG}"), out / "run")
    runs = [
        altered(run, out / f"{name}{LONG}", model={"kind": kind}, weights=weights)
        for name, kind, weights in (("teacher", "AMDM", {"model": "1"}), ("other", "AMDM", {}),
                                    ("student", "OmiAD", {"teacher": "1"}))
    ]  # fmt: skip
    page_of(runs, out)
    return out / "index.html"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def browser(started: Browser) -> Iterator[Browser]:
    """A browser in which no page may have a problem, or ask for anything but itself."""
    started.problems.clear()
    started.requests.clear()
    yield started
    started.call("Emulation.setEmulatedMedia", media="screen", features=[])
    assert started.problems == []
    assert {address.partition(":")[0] for address in started.requests} == {"file"}
    assert len({address for address in started.requests if "/pictures/" not in address}) == 1


def test_a_heading_sorts_and_a_method_can_be_left_out(browser: Browser, page: Path) -> None:
    browser.open(page)
    (first, down), (second, up), before, after = browser.run("""
      const table = document.querySelectorAll("table.sortable")[1];
      const heading = [...table.tHead.rows[0].cells].find((c) => c.textContent === "pixel AP");
      const sorted = () => {
        heading.querySelector("button").click();
        return [heading.getAttribute("aria-sort"), [...table.tBodies[0].rows].map((row) =>
          Number(row.cells[heading.cellIndex].dataset.value))];
      };
      const shown = () => document.querySelectorAll("table.figures tbody tr:not([hidden])").length;
      const found = [sorted(), sorted(), shown()];
      document.querySelector(".methods input").click();
      return [...found, shown()];
    """)
    assert (first, second) == ("descending", "ascending")
    assert len(set(down)) > 1
    assert (down, up) == (sorted(down, reverse=True), sorted(up))
    assert (before, after) == (6, 3)  # two methods on the mean and two categories


def test_filters_narrow_the_gallery_and_mistakes_come_first(browser: Browser, page: Path) -> None:
    browser.open(page)
    found = browser.run("""
      const form = document.getElementById("filters");
      const set = (values) => {
        for (const [name, value] of Object.entries(values)) form.elements[name].value = value;
        form.dispatchEvent(new Event("change"));
        return [...document.querySelectorAll("#gallery .item")].map((item) =>
          [item.title, item.querySelector(".outcome").dataset.outcome]);
      };
      return { all: set({}), cable: set({ category: "cable" }), hole: set({ defect: "hole" }),
        detected: set({ outcome: "detected" }),
        second: set({ category: "", defect: "", outcome: "", run: "1" }),
        alarms: set({ order: "alarms" }), count: document.getElementById("count").textContent };
    """)
    assert [len(found[name]) for name in ("all", "cable", "hole")] == [12, 6, 3]
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
      const item = document.querySelector("#gallery .item");
      return { open: viewer.open, first: item.title, focused: document.activeElement === item,
               live: viewer.querySelector("[aria-live]").textContent,
               narrowest: Math.min(...pictures.map((picture) => picture.clientWidth)),
               captions: [...viewer.querySelectorAll("figcaption")].map((c) => c.textContent) };
    """
    opened = browser.run(state)
    assert opened["open"]
    assert opened["live"] == f"{opened['first']}1 of 12"
    assert opened["narrowest"] > 150
    assert opened["captions"][:2] == ["normal reference", "input"]
    assert sum("overlay" in caption for caption in opened["captions"]) == 2
    browser.press("ArrowRight", 39)
    assert browser.run(state)["live"].endswith("2 of 12")
    browser.press("Escape", 27)
    closed = browser.run(state)
    assert (closed["open"], closed["focused"]) == (False, True)


def test_a_phone_scrolls_long_names_in_one_direction(browser: Browser, long_page: Path) -> None:
    browser.open(long_page, width=390, height=844)
    browser.run('for (const details of document.querySelectorAll("details")) details.open = true')
    assert browser.run("return [innerWidth, document.documentElement.scrollWidth]") == [390, 390]
    assert browser.run(OVERFLOWING) == []
    content, width, right = browser.run("""
      document.querySelector("#gallery .item").click();
      const viewer = document.getElementById("viewer");
      return [viewer.scrollWidth, viewer.clientWidth, viewer.getBoundingClientRect().right];
    """)
    assert content <= width
    assert right <= 390


def test_print_cuts_no_table(browser: Browser, long_page: Path) -> None:
    browser.open(long_page)
    browser.call("Page.printToPDF")  # opens all that is folded
    dark = {"name": "prefers-color-scheme", "value": "dark"}
    browser.call("Emulation.setEmulatedMedia", media="print", features=[dark])
    browser.resize(703, 1000)  # A4 without its margins
    assert browser.run(OVERFLOWING.replace('!thing.closest(".scroll > *")', "true")) == []
    widest, cells, closed, paper = browser.run("""
      const width = (thing) => thing.getBoundingClientRect().width;
      const shown = (selector) => [...document.querySelectorAll(selector)].filter(width);
      const cut = shown("th, td").filter((cell) => cell.scrollWidth > cell.clientWidth + 1);
      return [Math.max(...shown("table, figure").map(width)), cut.map((cell) => cell.textContent),
              document.querySelectorAll("details:not([open])").length,
              getComputedStyle(document.body).backgroundColor];
    """)
    assert widest <= 703
    assert (cells, closed) == ([], 0)
    assert paper == "rgb(255, 255, 255)"  # also on a dark screen


@pytest.mark.parametrize("where", ["embedded", "folder"])
def test_a_bright_map_hides_its_photograph_and_a_dark_one_does_not(
    browser: Browser, mvtec_root: Path, tmp_path: Path, where: str
) -> None:
    run = evaluated(mvtec_root, tmp_path / "run", quality=20)
    page_of([run], tmp_path / "page", f"--pictures={where}")
    browser.open(tmp_path / "page" / "index.html")
    left, top, side = browser.run("""
      const form = document.getElementById("filters");
      form.elements.defect.selectedIndex = 2;
      form.elements.overlay.click();
      const stack = document.querySelectorAll("#gallery .item .stack")[1];
      await Promise.all([...stack.querySelectorAll("img")].map((image) => image.decode()));
      stack.scrollIntoView({ behavior: "instant", block: "center" });
      const box = stack.getBoundingClientRect();
      return [box.left, box.top, box.width];
    """)
    browser.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as picture:
        box = (left, top, left + side, top + side)
        shown = np.asarray(picture.convert("RGB").resize((32, 32), box=box), dtype=float)
    bright = shown[9:15, 9:15].reshape(-1, 3)
    assert bright[:, :2].min() > 230
    assert bright[:, 2].max() < 190  # pale yellow, and nothing of the grey stripes
    assert np.ptp(shown[20:30].reshape(-1, 3), axis=1).mean() < 30  # grey
    assert np.ptp(shown[20:30].mean((0, 2))) > 60  # stripes


def test_what_comes_from_elsewhere_is_never_markup(browser: Browser, tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_mvtec(root, np.random.default_rng(0), categories=HOSTILE, num_train=1, num_good=2,
                num_bad=1, defect="<")  # fmt: skip
    for category in HOSTILE:
        bad, mask = (root / category / name / "<" for name in ("test", "ground_truth"))
        (bad / "000.png").rename(bad / f"{SCRIPT}.png")
        (mask / "000_mask.png").rename(mask / f"{SCRIPT}_mask.png")
    texts = ("dataset", "checkpoint", "selected_on", "hardware")
    tables = ("protocol_steps", "versions")
    model = dict.fromkeys(("backbone", "maps", ATTACK), ATTACK) | {"num_steps": 7}
    latency = {"batch_size": 1, "num_batches": 1, "of": ATTACK, "ms_per_image": 1.0}
    hostile = dict.fromkeys(texts, ATTACK) | {key: {ATTACK: ATTACK} for key in tables}
    hostile |= {"latency": latency, "weights": {"model": ATTACK, "teacher": ATTACK}}
    hostile |= {"notes": {HOSTILE[0]: ATTACK}}
    run = evaluated(root, tmp_path / "run")
    pair = [
        altered(run, tmp_path / f"<b>&{kind}", **hostile, model={**model, "kind": kind})
        for kind in ("AMDM", "OmiAD")
    ]
    page_of(pair, tmp_path / "report")
    browser.open(tmp_path / "report" / "index.html")
    names, rows, columns, foreign, scripts, pwned = browser.run("""
      const all = (selector) => [...document.querySelectorAll(selector)];
      const texts = (selector) => all(selector).map((element) => element.textContent);
      const names = all("#gallery .item").map((item) => item.title);
      all("#gallery .item")[0].click();
      return [names, texts("table.figures th[scope=row]"), texts("thead th"),
              all('img[src="x"], main script, h3 b').length, document.scripts.length,
              typeof window.pwned];
    """)
    assert len(names) == 12
    assert sum(f"/{SCRIPT}" in name for name in names) == 4
    assert set(HOSTILE) <= set(rows)
    assert "AMDM (teacher), 7 steps" in columns
    assert (foreign, scripts, pwned) == (0, 2, "undefined")


def test_a_page_runs_no_script_but_its_own(browser: Browser, page: Path, tmp_path: Path) -> None:
    injected = tmp_path / "index.html"
    text = page.read_bytes().replace(b"</main>", b"<script>pwned = 1</script></main>")
    injected.write_bytes(text)
    browser.open(injected)
    assert browser.run("return typeof window.pwned") == "undefined"
    assert "Content Security Policy" in browser.problems.pop()


def predicted(name: str, decision: Decision, score: float) -> dict[str, Any]:
    """Return an entry of the page of predictions, with one box if it shows a defect."""
    values, is_known = np.zeros((8, 8), np.float32), decision in ("ok", "defect")
    found = Inspection(
        decision,
        "<b>bolt" if is_known else None,
        score,
        0.01 if is_known else None,
        Threshold(2.0, 2.0) if is_known else None,
        values,
        [Region((8, 0, 16, 4), 20, 3.0)] if decision == "defect" else [],
        (16, 8),
    )
    pixels = np.zeros((8, 8, 3), np.uint8)
    return page_entry(name, pixels=pixels, inspection=found, scale=(0, 1))


def test_a_page_of_predictions_shows_decisions_and_boxes(browser: Browser, tmp_path: Path) -> None:
    made = PredictionPage(tmp_path / "page", max_megabytes=1)
    found = (("a/ok.png", "ok", 1), ("b/bad.png", "defect", 3), ("b/who.png", "unknown product", 9))
    for number, each in enumerate(found):
        made.add(number, predicted(*each))  # type: ignore[arg-type]
    decisions = {"ok": 1, "defect": 1, "unknown product": 1, "unreadable": 2}
    browser.open(made.write(decisions=decisions, scale=(0, 1)))
    lead, items, box, filtered, panes = browser.run("""
      const items = () => [...document.querySelectorAll("#gallery .item")];
      const texts = items().map((item) =>
        [item.querySelector(".outcome").textContent, item.querySelector(".line").textContent]);
      const box = items()[0].querySelector(".box").style;
      const found = [document.querySelector("header p").textContent, texts,
        [box.left, box.top, box.width, box.height]];
      const form = document.getElementById("filters");
      form.elements.outcome.value = "unknown product";
      form.dispatchEvent(new Event("change"));
      found.push(items().map((item) => item.title));
      items()[0].click();
      return [...found, document.querySelectorAll("#panes img").length];
    """)
    assert lead == "1 defect, 1 unknown product, 1 ok, 2 unreadable"
    assert items == [
        ["✕ defect", "score 3 > 2, p = 0.01"],
        ["? unknown product", "score 9"],
        ["✓ ok", "score 1 ≤ 2, p = 0.01"],
    ]
    assert box == ["50%", "0%", "50%", "50%"]
    assert (filtered, panes) == (["b/who.png"], 4)


def test_a_folder_may_be_called_like_a_part_of_javascript(browser: Browser, tmp_path: Path) -> None:
    made = PredictionPage(tmp_path / "page", max_megabytes=1)
    names = [f"{folder}/a.png" for folder in ("constructor", "__proto__", "toString")]
    for number, name in enumerate(names):
        made.add(number, predicted(name, "not calibrated", 0.5))
    browser.open(made.write(decisions={"not calibrated": 3}, scale=(0, 1)))
    items, panes = browser.run("""
      const items = [...document.querySelectorAll("#gallery .item")];
      items[0].click();
      const panes = document.querySelectorAll("#panes img");
      return [items.map((item) => item.textContent), panes.length];
    """)
    assert (items, panes) == ([f"score 0.5{name}" for name in names], 4)
