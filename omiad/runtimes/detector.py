"""The detector of an export, which photographs, commands and Python use like any other."""

from pathlib import Path

import torch
from torch import Tensor

from omiad.errors import InputError
from omiad.names import one_line
from omiad.predictor import Predictor
from omiad.products import UNKNOWN, NormalScores, Products
from omiad.runtimes.record import ExportRecord
from omiad.runtimes.sessions import SESSIONS, Outputs, open_session
from omiad.tiling import WHOLE, Tiling
from omiad.types import Assessment

TORCH_SUFFIX = ".pt2"
"""Suffix of a graph of torch.export, which omiad writes but never reads."""


class Canvas:
    """What photographs are read for; see `omiad.predictor.Intake`."""

    def __init__(self, image_size: int, white_level: int) -> None:
        self.image_size, self.white_level = image_size, white_level
        self.tiling = Tiling(WHOLE, image_size)


class ExportedDetector(Predictor):
    """A model that `omiad export` wrote: it predicts and inspects, and does nothing else.

    It runs on the CPU with as many threads as torch has. Photographs are scored one by one, so a
    score is the same to the last bit whatever else is in the batch.

    Attributes:
        record: What the file says about its model.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.record: ExportRecord
        self.record, self._run = open_session(path)
        self.extractor = Canvas(self.record["image_size"], self.record["white_level"])
        self.source = f"'{one_line(str(path))}'"
        self.false_alarms = self.record["false_alarms"]
        self.map_range = torch.tensor(self.record["map_range"])
        self.products = Products.judging(
            {
                product["name"]: NormalScores(
                    torch.tensor(product["images"]), torch.tensor(product["peaks"])
                )
                for product in self.record["products"]
            }
        )

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> "ExportedDetector":
        """Load an export.

        Raises:
            MissingInputError: If a file or the package that runs it is missing.
            InputError: If the file is damaged, has a format that omiad does not run, comes from
                another version, or is wanted on another device than the CPU.
        """
        path = Path(path)
        if path.suffix == TORCH_SUFFIX:
            raise InputError(
                f"'{one_line(str(path))}' is a graph of torch.export, which can hold code. If you "
                f"trust it, load it with torch.export.load; omiad runs {', '.join(SESSIONS)}."
            )
        if torch.device(device).type != "cpu":
            raise InputError(f"An export runs on the CPU, not on '{device}'. Use --device cpu.")
        return cls(path)

    def run(self, images: Tensor, given: int = UNKNOWN) -> Outputs:
        """Run the graph on photographs (B, 3, S, S), uint8, all of one product, by its number.

        Raises:
            InputError: If the runtime fails.
        """
        numbers = torch.full((len(images),), given).numpy()
        try:
            return self._run(images.cpu().contiguous().numpy(), numbers)
        except Exception as error:  # each runtime has its own exceptions
            raise InputError(
                f"{self.source} cannot be run ({one_line(str(error))[:300]}). Give photographs of "
                f"{self.extractor.image_size} x {self.extractor.image_size} pixels, or export the "
                f"model again."
            ) from error

    def assess_images(self, images: Tensor, category: str | None) -> Assessment:
        """Score photographs, and recognise their products; see `inspect`."""
        given = UNKNOWN if category is None else self.products.number(category)
        each = [self.run(image[None], given) for image in images]
        scores, maps, shown = (
            torch.cat([torch.from_numpy(outputs[name]) for outputs in each])
            for name in ("score", "anomaly_map", "product")
        )
        self.check_finite(scores, maps)
        return Assessment(scores, maps, shown)


def is_export(path: str | Path) -> bool:
    """Return whether a file is an export, by its suffix."""
    return Path(path).suffix in (*SESSIONS, TORCH_SUFFIX)


def device_for(path: str | Path, device: str) -> str:
    """Return the name of the device of a model; "auto" is the CPU for an export."""
    return "cpu" if device == "auto" and is_export(path) else device
