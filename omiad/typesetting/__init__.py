"""Results laid out as the paper's tables are, for a manuscript."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omiad.errors import InputError, MissingInputError
from omiad.paper import METRICS_OF_TABLE, paper_table
from omiad.report.markup import as_csv, as_latex, as_markdown, printable
from omiad.sweeps import NAMES
from omiad.sweeps.tables import HEADINGS
from omiad.typesetting.entries import Entry, own_entries, printed_entries
from omiad.typesetting.layouts import lay_out
from omiad.typesetting.runs import Run, find_runs

logger = logging.getLogger(__name__)

_MARKUP = {".csv": as_csv, ".md": as_markdown, ".tex": as_latex}

_OVER_DATASETS = (1, 12)
"""Tables that hold several data sets."""

_OF_A_DATASET = range(4, 12)
"""Tables of one of the paper's data sets, category by category."""


def typeset(
    results: list[str],
    *,
    table: int,
    output: str,
    paper: bool = False,
    configs: str = "configs",
) -> None:
    """Write results as a table in the paper's layout, to paste into a manuscript.

    Give files results.json, their folders, or folders of sweeps, each perhaps as NAME=PATH. Runs of
    one name on one data set are seeds of one model: mean±standard deviation. Without a name a run
    is called by its kind of model, a method's maps by their folder.

    Args:
        results: What the table is made of.
        table: Number of the paper's table: 1, or 3 to 15. Data sets of your own take any of them.
        output: File to write: .csv, .md (Markdown) or .tex (a LaTeX tabular).
        paper: Put the paper's figures beside, marked as such.
        configs: Folder of the configurations, which name a sweep's rows of an ablation.

    Raises:
        InputError: If there is no such table or markup, the runs do not belong together, or the
            file cannot be written.
    """
    markup = _MARKUP.get(Path(output).suffix)
    if markup is None:
        raise InputError(f"'{output}' is no table. End --output in {', '.join(_MARKUP)}.")
    if table not in METRICS_OF_TABLE or table == 2:
        raise InputError(f"Table {table} is not made of results; choose 1, or 3 to 15.")
    runs = find_runs(results, table=table, configs=Path(configs))
    datasets = _datasets(runs, table, paper=paper)
    entries = own_entries(runs)
    title = _title(table, runs[0].record, entries)
    if paper:
        entries = [*(e for name in datasets for e in printed_entries(table, name)), *entries]
        title += " (paper): as the paper prints it."
    entries.sort(key=lambda entry: datasets.index(entry.dataset))
    _write(Path(output), markup(lay_out(table, entries, title=title)))
    logger.info("table: %s", output)


def _datasets(runs: Sequence[Run], table: int, *, paper: bool) -> list[str]:
    """Return the data sets of runs in the paper's order, others after them.

    Raises:
        InputError: If the table, or the paper, has no place for one.
    """
    if own := [run.dataset for run in runs if paper and run.published is None]:
        raise InputError(f"The paper has no figures on {printable(own[0])}. Leave --paper out.")
    names = sorted({run.dataset for run in runs})
    if len(names) > 1 and table not in _OVER_DATASETS:
        raise InputError(
            f"Table {table} is of one data set, but the runs are of {printable(', '.join(names))}. "
            f"Give the runs of one."
        )
    of_table = paper_table(table)[0].dataset
    if table in _OF_A_DATASET and runs[0].published not in (None, of_table):
        raise InputError(
            f"Table {table} is of {of_table}, but '{runs[0].path}' of {runs[0].published}. Choose "
            f"that data set's table."
        )
    return [name for name in NAMES.values() if name in names] + [
        name for name in names if name not in NAMES.values()
    ]


def _title(table: int, record: dict[str, Any], entries: Sequence[Entry]) -> str:
    """Say what the figures are, how they were measured and how many stand behind each."""
    metrics = METRICS_OF_TABLE[table]
    sentences = [f"Table {table}, {'/'.join(HEADINGS[metric] for metric in metrics)} in %"]
    changes = [
        f"{k} {v}" for k, v in record.get("protocol_changes", {}).items() if k != "upsampling"
    ]
    sentences.append(", ".join([f"protocol {record['protocol']}", *changes]))
    if record.get("estimator", "exact") != "exact":
        sentences.append("pixel figures as the protocol's source estimates them")
    seeds = {entry.title: len(entry.mean[metrics[0]]) for entry in entries}
    if max(seeds.values()) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in seeds.items())
        sentences.append(f"mean±standard deviation over runs: {counts}")
    for entry in {entry.dataset: entry for entry in entries}.values():
        sentences += _undefined(entry, metrics)
    return "; ".join(map(printable, sentences)) + "."


def _undefined(entry: Entry, metrics: Sequence[str]) -> Iterator[str]:
    """Say which means are over fewer categories than there are."""
    rows, few = entry.categories.values(), defaultdict[int, list[str]](list)
    for metric in metrics:
        few[sum(None not in row[metric] for row in rows)].append(HEADINGS[metric])
    few.pop(len(rows), None)
    for count, names in few.items():
        yield f"{entry.dataset}: {', '.join(names)} over {count} of {len(rows)} categories"


def _write(path: Path, text: str) -> None:
    """Write a new file.

    Raises:
        InputError: If it exists or cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
    except FileExistsError as error:
        raise InputError(f"'{path}' is there already. Choose another --output.") from error
    except FileNotFoundError as error:
        raise MissingInputError(
            f"No folder '{path.parent}' to write '{path.name}' in. Make it, or choose another "
            f"--output."
        ) from error
    except OSError as error:
        raise InputError(
            f"'{path}' cannot be written ({error.strerror}). Choose another --output."
        ) from error
