"""`omiad report`: a page of one or many runs."""

import logging
from html import escape
from pathlib import Path

from omiad.errors import InputError, MissingInputError
from omiad.report import sections
from omiad.report.entries import collect
from omiad.report.page import Section, write_page
from omiad.report.pictures import FOLDER, MAX_MEGABYTES, Album, Where
from omiad.report.runs import Runs, read_runs

logger = logging.getLogger(__name__)


def report(
    runs: list[str],
    *,
    out: str,
    root: str | None = None,
    pictures: Where = "embedded",
    max_megabytes: float | None = None,
) -> None:
    """Make a page of run folders that opens from a file and needs no network: DIR/index.html.

    A run folder is what `omiad test`, `omiad evaluate` or `omiad fit` wrote. The page has the
    figures beside the paper's, curves, score histograms, and images with their maps, the worst
    mistakes first.

    Args:
        runs: Run folders, or files results.json; all on the same data.
        out: Folder to write to.
        root: Folder of the photographs, if they do not lie where they were tested any more.
        pictures: embedded keeps them in the page itself; folder puts larger ones beside it, for
            large data sets.
        max_megabytes: Most that all pictures may take, 1 MB being 10**6 bytes; by default 20 in the
            page and 200 in a folder.

    Raises:
        InputError: If the output is there already, a path holds no run, or a run no figure.
        MissingInputError: If a path does not exist.
    """
    folder = Path(out)
    path = free_page(folder)
    if pictures == "folder":
        _refuse_pictures(folder / FOLDER)
    if root is not None and not Path(root).expanduser().is_dir():
        raise MissingInputError(f"No folder '{root}'. Check --root.")
    megabytes = MAX_MEGABYTES[pictures] if max_megabytes is None else max_megabytes
    album = Album(folder, where=pictures, max_megabytes=megabytes)
    found = read_runs(runs)
    given = None if root is None else Path(root).expanduser()
    parts, data = _sections(found, album, root=given, max_megabytes=megabytes)
    if not parts:
        raise InputError(
            f"{', '.join(runs)}: no figure was logged yet, so there is nothing to report. Train "
            f"on, or give a test's folder."
        )
    write_page(
        path,
        title=_title(found),
        lead=f'<p class="soft">{escape(", ".join(runs))}</p>',
        sections=parts,
        gallery=data,
    )
    logger.info("report: %s (%.1f MB)", path, path.stat().st_size / 1e6)


def free_page(folder: Path, *, option: str = "--out") -> Path:
    """Return where a page in a folder goes.

    Args:
        folder: It need not be there.
        option: That names it.

    Raises:
        InputError: If the folder is a file, or holds a page.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"'{folder}' is a file. Give {option} a folder.")
    path = folder / "index.html"
    if path.exists():
        raise InputError(f"'{folder}' already holds a page. Choose another {option}.")
    return path


def _refuse_pictures(folder: Path) -> None:
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"'{folder}' is there already. Choose another --out.")


def _sections(
    runs: Runs, album: Album, *, root: Path | None, max_megabytes: float
) -> tuple[list[Section], dict[str, object] | None]:
    parts: list[Section] = []
    data = None
    if runs.tested:
        parts.append(sections.summary(runs.tested))
        parts.append(sections.results(runs.tested, runs.categories))
        shown = collect(runs.tested, album, root=root)
        data = shown.data if shown.num_shown else None
        parts.append(sections.gallery(runs.tested, shown, max_megabytes=max_megabytes))
        parts.append(sections.curves(runs.tested, runs.categories))
    trained = sections.training(runs.trainings)
    if trained is not None:
        parts.append(trained)
    return parts, data


def _title(runs: Runs) -> str:
    if not runs.tested:
        return "Training"
    names = dict.fromkeys(str(run.record.get("dataset", "test")) for run in runs.tested)
    return f"Anomaly detection on {', '.join(names)}"
