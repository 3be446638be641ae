"""`omiad report`: a page of one or many runs."""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from omiad.errors import InputError
from omiad.files import only_writer
from omiad.metrics.table import HEADINGS
from omiad.report.images import images
from omiad.report.page import free_page, write_page
from omiad.report.pictures import FOLDER, MAX_MEGABYTES, Album, Where, free_folder
from omiad.report.runs import read_runs
from omiad.report.sections import curves, legend, results, summary
from omiad.report.training import training

logger = logging.getLogger(__name__)


def report(
    runs: list[str],
    *,
    out: str,
    root: str | None = None,
    pictures: Where = "embedded",
    max_megabytes: float | None = None,
) -> None:
    """Make a page of run folders, DIR/index.html, that opens from a file and needs no network.

    A run folder is what `omiad test`, `omiad evaluate` or `omiad fit` wrote. The page shows the
    figures beside the paper's, curves, score histograms, and images with their maps, the worst
    mistakes first.

    Args:
        runs: Run folders, or paths of results.json; all on the same data.
        out: Folder to write to.
        root: Folder of the photographs, if it has moved since the test.
        pictures: embedded keeps the pictures in the page itself; folder writes larger ones beside
            it, for large data sets.
        max_megabytes: Limit of all pictures together, 1 MB being 10**6 bytes; by default 20 in the
            page and 200 in a folder.

    Raises:
        InputError: If the page exists already, a path holds no run, or no run has a figure.
        MissingInputError: If a path does not exist.
    """
    folder = Path(out)
    free_page(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with only_writer(folder / ".lock", owner=folder):
            _report(folder, runs, root, pictures, max_megabytes)
    finally:
        with suppress(OSError):
            folder.rmdir()  # unless something was written


def _report(
    folder: Path, runs: list[str], root: str | None, pictures: Where, max_megabytes: float | None
) -> None:
    path = free_page(folder)
    if pictures == "folder":
        free_folder(folder / FOLDER)
    megabytes = MAX_MEGABYTES[pictures] if max_megabytes is None else max_megabytes
    album = Album(folder, where=pictures, max_megabytes=megabytes)
    tested, fits = read_runs(runs, root)
    title, sections, content = "Training", dict[str, str](), dict[str, Any](gallery=None)
    if tested:
        names = dict.fromkeys(run.record["dataset"] for run in tested)
        title = f"Anomaly detection on {', '.join(names)}"
        sections |= {"summary": "Summary", "results": "Results", "images": "Images"}
        sections["curves"] = "Curves and scores"
        content = {
            "figures": HEADINGS,
            "summary": summary(tested),
            "results": results(tested),
            "curves": curves(tested),
            "legends": {name: legend(tested, name) for name in ("results", "curves")},
            **images(tested, album),
        }
    if trainings := training(fits):
        sections["training"] = "Training"
    if not sections:
        raise InputError(
            f"The runs {', '.join(runs)} have logged no training figure yet. Train longer, or give "
            f"the folder of a test."
        )
    lead = ", ".join(runs)
    write_page(path, title=title, lead=lead, sections=sections, trainings=trainings, **content)
    album.finish()
    logger.info("report: %s (%.1f MB)", path, path.stat().st_size / 1e6)
