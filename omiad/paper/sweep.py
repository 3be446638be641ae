"""`omiad sweep` and `omiad table`: train and test the models of a table of the paper."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.markdown import Markdown

from omiad.errors import InputError, MissingInputError
from omiad.files import write_whole
from omiad.paper.entries import Entry, printed_entries, read_entry
from omiad.paper.layouts import lay_out
from omiad.paper.printed import DATASETS
from omiad.paper.runs import ABLATIONS, Runs, models_of_table, sweep_results
from omiad.terminal import console

logger = logging.getLogger(__name__)

Dataset = Literal["mvtec", "visa", "mpdd", "realiad", "folder"]


def sweep(
    dataset: Dataset,
    root: str,
    *,
    output: str = "runs/sweeps",
    configs: str | None = None,
    small: bool = False,
    options: str = "",
    teacher_options: str = "",
) -> None:
    """Train and test both stages on a data set, and compare the figures with the paper's.

    The command may be interrupted: the next call skips what is done and resumes what was begun.

    Args:
        dataset: Which configurations to use; `folder` is for your own photographs.
        root: Folder of the data set.
        output: Folder of all sweeps.
        configs: Folder of other configurations than omiad's own.
        small: Use the small preset, for a CPU.
        options: Further options of every fit, in one string.
        teacher_options: Further options of stage 1, e.g. "--data.weights FILE".
    """
    runs = _runs(dataset, root, output, configs, small, options, teacher_options)
    _train(runs, 1, "table.md", shown=(1, 12))


def table(
    number: int,
    *,
    root: str | None = None,
    dataset: Dataset = "mvtec",
    output: str = "runs/sweeps",
    configs: str | None = None,
    small: bool = False,
    options: str = "",
    teacher_options: str = "",
) -> None:
    """Fill a table of the paper with your own figures, and compare them with the paper's.

    Tables 1 and 12 collect the finished sweeps. Tables 3, 13, 14 and 15 train and test their rows
    on one data set; they may be interrupted.

    Args:
        number: 1, 3, 12, 13, 14 or 15.
        root: Folder of the data set, for an ablation.
        dataset: Which configurations to use for an ablation; `folder` is for your own photographs.
        output: Folder of all sweeps.
        configs: Folder of other configurations than omiad's own.
        small: Use the small preset, for a CPU. An ablation on a `folder` always does.
        options: Further options of every fit, in one string.
        teacher_options: Further options of stage 1, e.g. "--data.weights FILE".
    """
    if number in ABLATIONS:
        if root is None:
            raise InputError(f"Table {number} trains on a data set. Give --root FOLDER.")
        # Table 14 has its networks in two sizes only: the paper's and the small preset's.
        small = small or dataset == "folder"
        runs = _runs(dataset, root, output, configs, small, options, teacher_options)
        _train(runs, number, f"table_{number}.md", shown=(number,))
    elif number in (1, 12):
        _collect(number, output, small=small)
    else:
        raise InputError(f"Table {number} does not consist of runs. Choose 1, 3, 12, 13, 14 or 15.")


def _train(runs: Runs, number: int, file: str, *, shown: Sequence[int]) -> None:
    """Train and test the models of a table, and write the tables to show."""
    models = models_of_table(number, configs=runs.configs, small=runs.small)
    entries = [read_entry(runs.results(model), name) for name, model in models.items()]
    minutes = ", ".join(f"{name} {runs.minutes(model)}" for name, model in models.items())
    note = f"data set {runs.root.name}; minutes of training: {minutes}"
    _write(runs.folder / file, shown, entries, note)


def _collect(number: int, output: str, *, small: bool) -> None:
    entries = []
    for dataset in DATASETS:
        folder = _folder(output, dataset, small=small)
        if found := sweep_results(number, folder):
            entries += [read_entry(path, name) for name, path in found.items()]
        else:
            logger.info("no results in %s; `omiad sweep %s ROOT` makes them", folder, dataset)
    if not entries:
        raise MissingInputError(
            f"No finished sweep under '{output}'. Run `omiad sweep mvtec ROOT` first, or give the "
            f"--output of your sweeps."
        )
    path = _folder(output, f"table_{number}", small=small).with_suffix(".md")
    _write(path, (number,), entries, "small preset" if small else "")


def _runs(
    dataset: Dataset, root: str, output: str, configs: str | None, small: bool, *options: str
) -> Runs:
    given = None if configs is None else Path(configs)
    folder = _folder(output, dataset, small=small)
    return Runs(dataset, Path(root), folder, given, small, *options)


def _folder(output: str, name: str, *, small: bool) -> Path:
    return Path(output) / (f"{name}_small" if small else name)


def _write(path: Path, tables: Sequence[int], own: Sequence[Entry], note: str) -> None:
    """Print and write tables of our figures and the paper's of the same models, in Markdown."""
    names = {entry.name for entry in own}
    texts = []
    for number in tables:
        # The paper's ablations are on MVTec-AD alone.
        datasets = {"MVTec-AD"} if number in ABLATIONS else {e.published for e in own} - {None}
        printed = [e for d in datasets for e in printed_entries(number, d) if e.name in names]
        texts.append(lay_out(number, [*printed, *own], ".md", note))
    text = "\n".join(texts)
    console().print(Markdown(text))
    write_whole(path, text)
    logger.info("table: %s", path)
