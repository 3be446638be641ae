"""Which models fill a table of the paper, and where a sweep keeps their results."""

from pathlib import Path
from typing import NamedTuple

import yaml  # a dependency of Lightning and jsonargparse, whose files it reads here

from omiad.errors import MissingInputError

ABLATIONS = (3, 13, 14, 15)
"""Tables whose rows are variants of OmiAD."""


class Model(NamedTuple):
    """The files in configs/ablation that configure stage 1 of a model and stage 2, if any."""

    teacher: str
    distil: str | None = None

    @property
    def folder(self) -> str:
        """Name of the model's folder in a sweep."""
        return "_".join(filter(None, self))


def models_of_table(number: int, *, configs: Path, small: bool) -> dict[str, Model]:
    """Return the models of a table or of its small preset, by the paper's names, in its order."""
    if number not in ABLATIONS:
        models = {"AMDM": Model("adaptive_mask"), "OmiAD": Model("adaptive_mask", "asd")}
        return models if number == 1 else {"OmiAD": models["OmiAD"]}
    tables = yaml.safe_load(configuration(configs, "ablation/tables.yaml").read_text())
    return {
        name: Model((small and row.get("small_teacher")) or row["teacher"], row.get("distil"))
        for name, row in tables[number].items()
    }


def configuration(configs: Path, name: str) -> Path:
    """Return the path of a configuration, or raise MissingInputError."""
    if not (configs / name).is_file():
        raise MissingInputError(
            f"No '{name}' in '{configs}'. Run from a checkout of omiad, or give --configs."
        )
    return configs / name


def sweep_results(number: int, sweep: Path, *, configs: Path) -> dict[str, Path]:
    """Return the results.json of each model of a table that a sweep has tested."""
    models = models_of_table(number, configs=configs, small=sweep.name.endswith("_small"))
    found = {name: latest_results(sweep / model.folder) for name, model in models.items()}
    return {name: path for name, path in found.items() if path}


def latest_results(folder: Path) -> Path | None:
    """Return the results.json of a model's folder, or None if the model has not been tested."""
    return next(reversed(in_parts(folder / "test", "results.json")), None)


def in_parts(folder: Path, file: str) -> list[Path]:
    """Return a file of each part of an interrupted run or test that has it, in their order."""
    parts = sorted(folder.glob("part_*"), key=lambda path: int(path.name.removeprefix("part_")))
    return [part / file for part in parts if (part / file).is_file()]
