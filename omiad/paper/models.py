"""Which models fill a table of the paper, and where a sweep keeps their results."""

from pathlib import Path
from typing import NamedTuple

import yaml  # a dependency of Lightning and jsonargparse, whose files it reads here

from omiad.errors import MissingInputError

ABLATIONS = (3, 13, 14, 15)
"""Tables whose rows are variants of OmiAD."""


class Model(NamedTuple):
    """A model of a table, trained in one stage or two.

    Attributes:
        teacher: File in configs/ablation that configures stage 1.
        distil: File in configs/ablation that configures stage 2; None if there is no stage 2.
    """

    teacher: str
    distil: str | None = None

    @property
    def folder(self) -> str:
        """Name of its folder in a sweep."""
        return self.teacher if self.distil is None else f"{self.teacher}_{self.distil}"


AMDM, OMIAD = Model("adaptive_mask"), Model("adaptive_mask", "asd")
"""The models of Table 1."""


def models_of_table(number: int, *, configs: Path, small: bool) -> dict[str, Model]:
    """Return the models that fill a table, by the paper's names and in its order.

    Args:
        number: Number of the table.
        configs: Folder of the configurations, whose ablation/tables.yaml defines the ablations.
        small: Whether the models are those of the small preset.
    """
    if number not in ABLATIONS:
        return {"AMDM": AMDM, "OmiAD": OMIAD} if number == 1 else {"OmiAD": OMIAD}
    tables = yaml.safe_load(configuration(configs, "ablation/tables.yaml").read_text())
    return {
        name: Model((small and row.get("small_teacher")) or row["teacher"], row.get("distil"))
        for name, row in tables[number].items()
    }


def configuration(configs: Path, name: str) -> Path:
    """Return the path of a configuration.

    Raises:
        MissingInputError: If there is no such file.
    """
    if not (configs / name).is_file():
        raise MissingInputError(
            f"No '{name}' in '{configs}'. Run from a checkout of omiad, or give --configs."
        )
    return configs / name


def sweep_results(number: int, sweep: Path, *, configs: Path) -> dict[str, Path]:
    """Return the results.json of each model of a table that a sweep has tested."""
    models = models_of_table(number, configs=configs, small=sweep.name.endswith("_small"))
    found = {name: latest_results(sweep / model.folder) for name, model in models.items()}
    return {name: path for name, path in found.items() if path is not None}


def latest_results(folder: Path) -> Path | None:
    """Return the results.json of a model's folder, or None if the model has not been tested."""
    files = [part / "results.json" for part in parts_of(folder / "test")]
    return next((path for path in reversed(files) if path.is_file()), None)


def parts_of(folder: Path) -> list[Path]:
    """Return the parts of an interrupted run or test, in their order."""
    return sorted(folder.glob("part_*"), key=lambda path: int(path.name.removeprefix("part_")))
