"""All runs behind a table of the paper, on a data set of one's own or the paper's."""

import logging
from pathlib import Path
from typing import Any, Literal

import yaml  # a dependency of Lightning and jsonargparse, whose files it reads here

from omiad.errors import InputError, MissingInputError
from omiad.paper import MEAN, METRICS_OF_TABLE, dataset_of, paper_table
from omiad.sweeps.runs import Row, Runs, finished_results, tested_results
from omiad.sweeps.tables import Beside, own_figures, write_table

logger = logging.getLogger(__name__)

Dataset = Literal["mvtec", "visa", "mpdd", "realiad", "folder"]
NAMES: dict[Dataset, str] = {
    "mvtec": "MVTec-AD",
    "visa": "VisA",
    "mpdd": "MPDD",
    "realiad": "Real-IAD",
}
"""What the paper calls a data set."""

TEACHER, WHOLE = Row("adaptive_mask", None), Row("adaptive_mask", "asd")
"""The two models of Table 1."""

ABLATIONS = (3, 13, 14, 15)


def sweep(
    dataset: Dataset,
    root: str,
    *,
    output: str = "runs/sweeps",
    configs: str = "configs",
    small: bool = False,
    options: str = "",
    teacher_options: str = "",
) -> None:
    """Train and test both stages on a data set, and lay the figures beside the paper's.

    Args:
        dataset: Which configurations; folder is for photographs of your own.
        root: Folder of the data set.
        output: Folder of all sweeps; what is done there is not done again.
        configs: Folder of the configurations.
        small: Take the preset for a CPU.
        options: Further options of every fit, in one string.
        teacher_options: Further options of stage 1, e.g. "--data.weights FILE".
    """
    runs = _runs(dataset, root, output, configs, small, options, teacher_options)
    for row in (TEACHER, WHOLE):
        runs.results(row)
    _table_of_sweep(runs, dataset)


def table(
    number: int,
    *,
    root: str | None = None,
    dataset: Dataset = "mvtec",
    output: str = "runs/sweeps",
    configs: str = "configs",
    small: bool = False,
    options: str = "",
    teacher_options: str = "",
) -> None:
    """Lay a table of the paper out with figures of one's own.

    Tables 1 and 12 collect the sweeps that are done; 3, 13, 14 and 15 train and test what is
    missing on one data set.

    Args:
        number: 1, 3, 12, 13, 14 or 15.
        root: Folder of the data set, for an ablation.
        dataset: Which configurations, for an ablation; folder is for photographs of your own.
        output: Folder of all sweeps; what is done there is not done again.
        configs: Folder of the configurations.
        small: Take the preset for a CPU, as an ablation on a folder always does.
        options: Further options of every fit, in one string.
        teacher_options: Further options of stage 1, e.g. "--data.weights FILE".

    Raises:
        InputError: If the table is none of these, an ablation has no root, or nothing is done yet.
    """
    if number in ABLATIONS:
        if root is None:
            raise InputError(f"Table {number} is trained on a data set. Give --root FOLDER.")
        # The networks of the rows are of the paper's size, or of the preset's.
        small = small or dataset == "folder"
        runs = _runs(dataset, root, output, configs, small, options, teacher_options)
        _ablation(runs, number)
    elif number in (1, 12):
        _collect(number, Path(output), small=small)
    else:
        raise InputError(
            f"Table {number} is not made of runs; choose 1, 12, {', '.join(map(str, ABLATIONS))}."
        )


def _runs(
    dataset: Dataset,
    root: str,
    output: str,
    configs: str,
    small: bool,
    options: str,
    teacher_options: str,
) -> Runs:
    return Runs(
        dataset,
        Path(root),
        _folder(Path(output), dataset, small=small),
        configs=Path(configs),
        small=small,
        options=options,
        teacher_options=teacher_options,
    )


def _folder(output: Path, name: str, *, small: bool) -> Path:
    return output / (f"{name}_small" if small else name)


def _ablation(runs: Runs, number: int) -> None:
    metrics = METRICS_OF_TABLE[number]
    made_of = _ablation_rows(number, runs.ablations, small=runs.small)
    rows = []
    for printed in paper_table(number):
        row = made_of[printed.method]
        figures = own_figures(runs.results(row), metrics)
        paper = {printed.dataset: printed.figures}
        rows.append(Beside(printed.method, figures, paper, _duration(runs.seconds(row))))
    path = runs.folder / f"table_{number}.md"
    write_table(path, f"Table {number}, on {runs.root.name} (%)", rows, metrics)
    logger.info("table: %s", path)


def _ablation_rows(number: int, ablations: Path, *, small: bool) -> dict[str, Row]:
    """Return what the rows of an ablation are made of, by the paper's names in its order."""
    listed = yaml.safe_load((ablations / "tables.yaml").read_text())[number]
    return {
        name: Row(
            (files.get("small_teacher") if small else None) or files["teacher"],
            files.get("distil"),
        )
        for name, files in listed.items()
    }


def rows_of_table(number: int, folder: Path, *, configs: Path) -> dict[str, Path | None]:
    """Return the results.json of each row of a table that a data set's sweep may hold.

    Args:
        number: Of the table.
        folder: Of the sweep, e.g. runs/sweeps/mvtec.
        configs: Folder of the configurations.

    Returns:
        By the paper's name of the row; None where it has not been tested.

    Raises:
        MissingInputError: If the configurations do not name the rows of an ablation.
    """
    models = {"AMDM": TEACHER, "OmiAD": WHOLE} if number == 1 else {"OmiAD": WHOLE}
    if number in ABLATIONS:
        if not (configs / "ablation" / "tables.yaml").is_file():
            raise MissingInputError(
                f"No 'ablation/tables.yaml' in '{configs}'. Run from a checkout of omiad, or give "
                f"--configs."
            )
        small = folder.name.endswith("_small")
        models = _ablation_rows(number, configs / "ablation", small=small)
    return {name: tested_results(folder / row.name) for name, row in models.items()}


def _table_of_sweep(runs: Runs, dataset: Dataset) -> None:
    metrics = (*METRICS_OF_TABLE[1], *METRICS_OF_TABLE[12])
    rows = []
    for method, row in (("AMDM", TEACHER), ("OmiAD", WHOLE)):
        results = runs.results(row)
        paper = printed_beside(results, dataset, method)
        figures = own_figures(results, metrics)
        rows.append(Beside(method, figures, paper, _duration(runs.seconds(row))))
    path = runs.folder / "table.md"
    write_table(path, f"{runs.root.name}, means over categories (%)", rows, metrics)
    logger.info("table: %s", path)


def _collect(number: int, output: Path, *, small: bool) -> None:
    metrics = METRICS_OF_TABLE[number]
    models = (("AMDM", TEACHER), ("OmiAD", WHOLE)) if number == 1 else (("OmiAD", WHOLE),)
    rows = []
    for dataset, name in NAMES.items():
        for method, row in models:
            results = finished_results(_folder(output, dataset, small=small) / row.name)
            if results is None:
                logger.info("%s: no %s yet; `omiad sweep %s ROOT` trains it", name, method, dataset)
                continue
            figures = own_figures(results, metrics)
            paper = printed_beside(results, dataset, method)
            rows.append(Beside(f"{name}, {method}", figures, paper))
    if not rows:
        raise MissingInputError(
            f"No sweep under '{output}' is done. Run `omiad sweep mvtec ROOT` first, or give its "
            f"--output."
        )
    preset = ", small preset" if small else ""
    path = _folder(output, f"table_{number}", small=small).with_suffix(".md")
    write_table(path, f"Table {number}{preset} (%)", rows, metrics)
    logger.info("table: %s", path)


def printed_beside(
    results: dict[str, Any], dataset: Dataset, method: str
) -> dict[str, dict[str, float]]:
    """Return the paper's figures of a method in Tables 1 and 12, by the paper's name of the data.

    Returns:
        Empty where the results' categories are not those that the paper's means are over.
    """
    name = NAMES.get(dataset)
    if name is None or dataset_of(results["categories"]) != name:
        return {}
    figures: dict[str, float] = {}
    for number in (1, 12):
        for row in paper_table(number):
            if (row.dataset, row.method, row.category) == (name, method, MEAN):
                figures |= row.figures
    return {name: figures}


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds / 60:.0f} min"
