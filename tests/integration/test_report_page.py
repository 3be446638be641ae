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

pytestmark = pytest.mark.slow

HOSTILE = ('<img src=x onerror="alert(1)">', "'\"&amp; <b>", "ünïcode 漢字", "x<")
"""Names of categories."""

SCRIPT = "script><script>alert(2)<!--"
"""A file of this name in a folder "<" makes a path that would end a script."""

ATTACK = '"><img src=x onerror="pwned = 1"><script>pwned = 1</script>'
"""What a results.json from elsewhere may hold in place of any text or number."""

LONG = "a_name_without_a_space_" * 4

OVERFLOWING = """
  return [...document.querySelectorAll("main *")].filter((thing) => !thing.closest(".scroll > *")
    && !thing.closest("svg")
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
    """A page of a teacher and its student whose names, and their categories', are long."""
    out = tmp_path_factory.mktemp("long")
    write_mvtec(out / "data", np.random.default_rng(0), categories=(f"1{LONG}", f"2{LONG}"))
    run = evaluated(out / "data", out / "run")
    runs = [
        altered(run, out / f"{name}{LONG}", model={"kind": kind}, weights=weights)
        for name, kind, weights in (("teacher", "AMDM", {"model": "1"}), ("other", "AMDM", {}),
                                    ("student", "OmiAD", {"teacher": "1"}))
    ]  # fmt: skip
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
    assert len({address for address in started.requests if "/pictures/" not in address}) == 1


def test_a_heading_sorts_its_table_both_ways(browser: Browser, page: Path) -> None:
    browser.open(page)
    (first, down), (second, up) = browser.run("""
      const table = document.querySelectorAll("table.sortable")[1];
      const heading = [...table.tHead.rows[0].cells].find((c) => c.textContent === "pixel AP");
      const column = () => [...table.tBodies[0].rows].map((row) =>
        Number(row.cells[heading.cellIndex].dataset.value));
      return [0, 1].map(() => {
        heading.querySelector("button").click();
        return [heading.getAttribute("aria-sort"), column()];
      });
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
      const title = document.getElementById("viewer-title");
      return { open: viewer.open, title: title.textContent,
               first: document.querySelector("#gallery .item").title,
               live: title.closest("[aria-live]").textContent,
               narrowest: Math.min(...pictures.map((picture) => picture.clientWidth)),
               captions: [...viewer.querySelectorAll("figcaption")].map((c) => c.textContent),
               focused: document.activeElement === document.querySelector("#gallery .item") };
    """
    opened = browser.run(state)
    assert opened["open"]
    assert opened["title"] == opened["first"]
    assert opened["narrowest"] > 150
    assert opened["captions"][:2] == ["normal reference", "input"]
    assert sum("overlay" in caption for caption in opened["captions"]) == 2
    browser.press("ArrowRight", 39)
    moved = browser.run(state)
    assert moved["title"] != opened["title"]
    assert moved["live"].endswith("2 of 12")
    browser.press("Escape", 27)
    closed = browser.run(state)
    assert not closed["open"]
    assert closed["focused"]


def test_a_phone_scrolls_in_one_direction(browser: Browser, any_page: Path) -> None:
    browser.open(any_page, width=390, height=844)
    browser.run('for (const details of document.querySelectorAll("details")) details.open = true')
    size = browser.run("return [innerWidth, document.documentElement.scrollWidth]")
    assert size == [390, 390]
    assert browser.run(OVERFLOWING) == []
    browser.run('document.querySelector("#gallery .item").click()')
    content, width, right = browser.run(
        'const v = document.getElementById("viewer");'
        "return [v.scrollWidth, v.clientWidth, v.getBoundingClientRect().right]"
    )
    assert content <= width
    assert right <= 390


def test_print_cuts_no_table(browser: Browser, any_page: Path, tmp_path: Path) -> None:
    browser.open(any_page)
    browser.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    browser.media("print", scheme="dark")
    browser.resize(703, 1000)  # A4 without its margins
    assert browser.run(OVERFLOWING.replace('!thing.closest(".scroll > *")', "true")) == []
    widest, cells, closed, paper = browser.run("""
      const width = (thing) => thing.getBoundingClientRect().width;
      const shown = (selector) => [...document.querySelectorAll(selector)].filter(width);
      return [
        Math.max(...shown("table, figure").map(width)),
        shown("th, td").filter((cell) => cell.scrollWidth > cell.clientWidth + 1)
          .map((cell) => cell.textContent),
        document.querySelectorAll("details:not([open])").length,
        getComputedStyle(document.body).backgroundColor,
      ];
    """)
    assert widest <= 703
    assert cells == []
    assert closed == 0
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
    assert np.ptp(shown[20:30].reshape(-1, 3), axis=1).mean() < 30  # grey
    assert np.ptp(shown[20:30].mean((0, 2))) > 60  # stripes


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
    assert (found["foreign"], found["bold"], found["scripts"]) == (0, None, 2)


def test_results_from_elsewhere_run_no_script(
    browser: Browser, runs: list[Path], tmp_path: Path
) -> None:
    texts = ("dataset", "protocol", "estimator", "checkpoint", "selected_on", "hardware")
    tables = ("protocol_steps", "protocol_changes", "versions", "notes")
    model = dict.fromkeys(("num_steps", "backbone", "image_size", "t_init", "maps"), ATTACK)
    latency = dict.fromkeys(("batch_size", "num_batches", "of"), ATTACK) | {"ms_per_image": 1.0}
    hostile: dict[str, Any] = {
        **dict.fromkeys(texts, ATTACK),
        **{key: {ATTACK: ATTACK} for key in tables},
        "latency": latency,
        "weights": {"model": ATTACK, "teacher": ATTACK},
    }
    pair = [
        altered(run, tmp_path / kind, **hostile, model={**model, "kind": kind})
        for run, kind in zip(runs, ("AMDM", "OmiAD"), strict=True)
    ]
    page_of(pair, tmp_path / "report")
    browser.open(tmp_path / "report" / "index.html")
    pwned, foreign, columns = browser.run("""
      const foreign = document.querySelectorAll('img[src="x"], main script').length;
      const heads = [...document.querySelectorAll("thead th")].map((c) => c.textContent);
      return [typeof window.pwned, foreign, heads.filter((text) => text.includes("steps"))];
    """)
    assert (pwned, foreign) == ("undefined", 0)
    assert f"AMDM (teacher), {ATTACK} steps" in columns


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
