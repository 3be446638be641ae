"""The report in a real browser: it sorts, filters, enlarges, fits a phone and prints."""

from pathlib import Path

import numpy as np
import pytest
from browser import look
from synthetic import write_mvtec
from test_report import evaluated, page_of

HOSTILE = (
    '<img src=x onerror="problems.push(1)">',
    "'\"&amp; <b>",
    "ünïcode 漢字",
    "x<",
)
"""Names of categories; the last one and a file name make an end of the script together."""


@pytest.fixture(scope="module")
def page(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page")
    runs = [evaluated(mvtec_root, out / name, quality=q) for name, q in (("a", 2), ("b", 0.5))]
    page_of(runs, out / "report")
    return out / "report" / "index.html"


def test_a_heading_sorts_its_table_both_ways(page: Path, tmp_path: Path) -> None:
    script = """
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
    """
    (first, down), (second, up) = look(page, script, tmp_path / "profile")
    assert (first, second) == ("descending", "ascending")
    assert len(set(down)) > 1
    assert down == sorted(down, reverse=True)
    assert up == sorted(up)


def test_filters_narrow_the_gallery_and_mistakes_come_first(page: Path, tmp_path: Path) -> None:
    script = """
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
    """
    found = look(page, script, tmp_path / "profile")
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


def test_a_picture_enlarges_and_escape_closes_it(page: Path, tmp_path: Path) -> None:
    script = """
      const viewer = document.getElementById("viewer");
      const first = document.querySelector("#gallery .item");
      first.focus();
      first.click();
      const opened = viewer.open && viewer.matches(":modal");
      const title = document.getElementById("viewer-title").textContent;
      const panes = [...viewer.querySelectorAll("figcaption")].map((c) => c.textContent);
      const pictures = [...viewer.querySelectorAll("img")];
      await Promise.all(pictures.map((picture) => picture.decode()));
      const wide = Math.min(...pictures.map((picture) => picture.clientWidth));
      viewer.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
      const next = document.getElementById("viewer-title").textContent;
      // What Chromium does on Escape: a close request, which a page may refuse.
      const refused = !viewer.dispatchEvent(new Event("cancel", { cancelable: true }));
      if (!refused) viewer.requestClose ? viewer.requestClose() : viewer.close();
      return { opened, first: first.title, title, next, panes, wide, closed: !viewer.open,
               focused: document.activeElement === first };
    """
    found = look(page, script, tmp_path / "profile")
    assert found["opened"]
    assert found["closed"]
    assert found["focused"]
    assert found["title"] == found["first"]
    assert found["next"] != found["title"]
    assert found["wide"] > 100
    assert found["panes"][:2] == ["normal reference", "input"]
    assert sum("overlay" in caption for caption in found["panes"]) == 2


def test_a_phone_scrolls_in_one_direction(page: Path, tmp_path: Path) -> None:
    script = """
      for (const details of document.querySelectorAll("details")) details.open = true;
      const frame = document.createElement("iframe");
      frame.style.cssText = "width:390px;height:844px;border:0";
      document.querySelector("#gallery .item").click();
      const root = document.documentElement;
      return { page: root.scrollWidth, window: innerWidth,
               dialog: document.getElementById("viewer").scrollWidth };
    """
    found = look(page, script, tmp_path / "profile", size=(390, 844))
    assert found["window"] <= 500  # the least that some builds of Chromium take
    assert found["page"] <= found["window"]
    assert found["dialog"] <= found["window"]


def test_paper_cuts_no_table(page: Path, tmp_path: Path) -> None:
    # As wide as an A4 page without its margins, and with the rules of print.
    text = page.read_text(encoding="utf-8").replace("@media print", "@media all")
    printed = tmp_path / "printed.html"
    printed.write_text(text, encoding="utf-8")
    script = """
      dispatchEvent(new Event("beforeprint"));
      const over = [...document.querySelectorAll("table, svg, .card, .item")].filter((thing) =>
        thing.getBoundingClientRect().right > innerWidth + 1).length;
      return { over, width: document.documentElement.scrollWidth, window: innerWidth,
               closed: document.querySelectorAll("details:not([open])").length,
               tables: document.querySelectorAll("table").length };
    """
    found = look(printed, script, tmp_path / "profile", size=(703, 1000))
    assert found["tables"] >= 2
    assert found["over"] == 0
    assert found["width"] <= found["window"]
    assert found["closed"] == 0


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_mvtec(root, np.random.default_rng(0), categories=HOSTILE, num_train=1, num_good=2,
                num_bad=1, defect="<")  # fmt: skip
    for category in HOSTILE:
        bad = root / category / "test" / "<"
        (bad / "000.png").rename(bad / "script><script>problems.push(2)<!--.png")
        mask = root / category / "ground_truth" / "<"
        (mask / "000_mask.png").rename(mask / "script><script>problems.push(2)<!--_mask.png")
    page_of([evaluated(root, tmp_path / "run <b>&")], tmp_path / "report")
    script = """
      const names = [...document.querySelectorAll("#gallery .item")].map((item) => item.title);
      document.querySelector("#gallery .item").click();
      return { names, scripts: document.scripts.length, bold: document.querySelector("h3 b"),
               rows: [...document.querySelectorAll("table.figures th[scope=row]")].map((c) =>
                 c.textContent),
               foreign: document.querySelectorAll('img[src="x"]').length };
    """
    found = look(tmp_path / "report" / "index.html", script, tmp_path / "profile")
    assert len(found["names"]) == 12
    assert sorted(found["rows"]) == sorted(HOSTILE)
    assert sum("/</script><script>problems.push(2)<!--" in name for name in found["names"]) == 4
    assert found["foreign"] == 0
    assert found["bold"] is None
    assert found["scripts"] == 4  # two of the page, two of this test
