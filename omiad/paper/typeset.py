"""`omiad typeset`: any results in the layout of a table of the paper."""

import logging
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from omiad.errors import InputError, MissingInputError
from omiad.files import expanded, new_file, write_whole
from omiad.paper.entries import Entry, printed_entries, read_entry
from omiad.paper.layouts import lay_out
from omiad.paper.markup import MARKUPS, printable
from omiad.paper.printed import METRICS_OF_TABLE, paper_table
from omiad.paper.runs import latest_results, sweep_results
from omiad.record import refuse_other_measures

logger = logging.getLogger(__name__)


def typeset(
    results: list[str], *, table: int, output: str, paper: bool = False, configs: str | None = None
) -> None:
    """Write results as a table in the paper's layout, to paste into a manuscript.

    Give results.json files, their folders, or folders of sweeps, each as PATH or NAME=PATH. Runs of
    the same name on a data set are seeds of one model and give mean±standard deviation. Without
    NAME, a run is named after its kind of model, and the maps of another method after their folder.

    Args:
        results: The runs that fill the table.
        table: Number of the paper's table: 1, or 3 to 15. Any of them takes data sets of your own.
        output: File to write: .csv, .md (Markdown) or .tex (a LaTeX tabular).
        paper: Add the paper's figures, marked as such.
        configs: Folder of other configurations than omiad's own, which define the rows of an
            ablation.
    """
    path = Path(output)
    if path.suffix not in MARKUPS:
        raise InputError(f"'{output}' is not a table. End --output in {', '.join(MARKUPS)}.")
    if table not in METRICS_OF_TABLE or table == 2:
        raise InputError(f"Table {table} does not consist of results. Choose 1, or 3 to 15.")
    other = None if configs is None else Path(configs)
    entries = [entry for text in results for entry in _read(text, table, other)]
    _refuse_mixtures(entries, table)
    datasets = dict.fromkeys(entry.published for entry in entries if paper)
    printed = [entry for name in datasets for entry in printed_entries(table, name)]
    text = lay_out(table, [*printed, *entries], path.suffix)
    try:
        with new_file(path, option="--output"):
            write_whole(path, text)
    except OSError as error:
        raise InputError(
            f"'{path}' cannot be written ({error.strerror}). Give --output a new file in a folder "
            f"that exists."
        ) from error
    logger.info("table: %s", path)


def _read(text: str, table: int, configs: Path | None) -> list[Entry]:
    """Read the runs that PATH or NAME=PATH stands for."""
    name, equals, given = text.partition("=")
    if not (name and equals) or Path(text).exists():  # the = may belong to the path
        name, given = "", text
    path = expanded(given)
    candidates = (path, path / "results.json", latest_results(path))
    if file := next((file for file in candidates if file and file.is_file()), None):
        return [read_entry(file, name)]
    files = sweep_results(table, path, configs=configs) if path.is_dir() else {}
    if not files:
        raise MissingInputError(
            f"No results for Table {table} at '{path}'. Give a results.json, its folder, or the "
            f"folder of a sweep."
        )
    if name and len(files) > 1:
        raise InputError(
            f"'{given}' holds several runs ({', '.join(map(str, files))}), which cannot all be "
            f"named '{name}'. Give their folders one by one."
        )
    return [read_entry(file, name or model) for model, file in files.items()]


def _refuse_mixtures(entries: Sequence[Entry], table: int) -> None:
    """Raise InputError if the runs cannot be compared."""
    refuse_other_measures({entry.path: entry.record for entry in entries if entry.path})
    names = sorted({entry.dataset for entry in entries})
    if len(names) > 1 and table not in (1, 12):
        runs_on = printable(", ".join(names))
        raise InputError(f"Table {table} lists one data set. Give the runs on one of {runs_on}.")
    of_table, published = paper_table(table)[0].dataset, entries[0].published
    if table in range(4, 12) and published not in (None, of_table):
        raise InputError(
            f"Table {table} lists {of_table}, but '{entries[0].path}' is on {published}. Choose "
            f"the table of that data set."
        )
    for first, other in combinations(entries, 2):
        if first.path and other.path and first.path.resolve() == other.path.resolve():
            raise InputError(f"'{other.path}' is given twice. Give each run once.")
        if first.dataset != other.dataset:
            continue
        both = f"'{first.path}' and '{other.path}'"
        if first.rows.keys() != other.rows.keys():
            raise InputError(f"{both} differ in their categories. Give runs on the same data.")
        one, two = (entry.record.get("model", {}) for entry in (first, other))
        # Seeds of a method have their own maps and scores.
        for key in sorted((one.keys() | two.keys()) - {"maps", "scores"}):
            if first.name == other.name and one.get(key) != two.get(key):
                raise InputError(
                    f"{both} are both named {first.name}, but differ in {key}: {one.get(key)} and "
                    f"{two.get(key)}. Name one of them, NAME=PATH."
                )
