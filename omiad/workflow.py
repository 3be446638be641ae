"""`omiad train`: from photographs of good parts to a model that decides, in one command."""

import logging
from dataclasses import asdict
from pathlib import Path

from omiad.advice import advice_ignored
from omiad.data.layouts import Layout
from omiad.devices import pick_device
from omiad.files import expanded, lock_beside, only_writer
from omiad.interrupts import Interrupted
from omiad.ledger import Ledger
from omiad.recipe import CONFIGURATIONS, REPORT, Model, Preset, Settings

logger = logging.getLogger(__name__)


def train(
    photos: str | Path,
    *,
    out: str | Path = "model",
    preset: Preset = "standard",
    false_alarms: float | None = None,
    layout: Layout = "auto",
    backbone: str = "tf_efficientnet_lite2",
    weights: str = "package",
    tiles: list[int] | None = None,
    device: str = "auto",
    seed: int = 0,
) -> Path:
    """Train one model on photographs of good parts of all products, and let the model decide.

    The command checks the photographs, trains both stages, sets a threshold for each product, and
    tests the model if there are photographs of defects. It writes model.ckpt, report.html and log/
    to the output folder. Give the same command again to go on after an interruption.

    Args:
        photos: Folder of photographs: of one product, or with a folder for each product.
        out: Folder to write to.
        preset: quick takes a few minutes, standard is the measured default, long is for a night.
        false_alarms: Share of normal photographs that may be called defective, such as 0.01. By
            default 1 %, or the lowest share that the photographs of a product support.
        layout: Layout of the folder, as for `omiad fit`.
        backbone: Model name in timm.
        weights: package, pretrained, random, or a file, as for `omiad fit`.
        tiles: Rows and columns of overlapping tiles that each photograph is cut into; by
            default nothing is cut. `omiad data check` recommends a grid where one helps.
        device: cpu, cuda, mps, or auto for a GPU if there is one.
        seed: Seed of initial weights, noise and data order.

    Returns:
        The path of model.ckpt.

    Raises:
        InputError: If the photographs have faults or are too few for the rate of false alarms, or
            if the output folder holds another model.

    Examples:
        `logging.basicConfig(level="INFO")` shows what a script or a notebook is doing.

        >>> from omiad import Detector, train
        >>> model = train("my_parts/", out="model", preset="quick")
        >>> Detector.load(model).products.names
        ['bottle', 'cable']
    """
    root = str(expanded(photos).resolve())
    settings = Settings(root, layout, preset, false_alarms, backbone, weights, tiles, seed)
    with advice_ignored():
        return make(Path(out), settings, device=device)


def make(
    folder: Path,
    settings: Settings,
    *,
    device: str = "auto",
    configs: tuple[str, str] = CONFIGURATIONS,
) -> Path:
    """Take the steps of a model that are still to be done, and return the path of model.ckpt.

    Arguments are those of `Model`, and errors those of `train`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with only_writer(lock_beside(folder), owner=folder):
        ledger = Ledger(folder, asdict(settings))
        model = Model(folder, settings, pick_device(device), configs=configs)
        steps = (
            *(model.check, model.stage_1, model.stage_2),
            *(model.decide, model.test, model.report),
        )
        if len(ledger.done) == len(steps):
            logger.info("'%s' is finished: nothing is left to do.", folder)
        try:
            for step in steps:
                ledger.run(step)
        except (KeyboardInterrupt, Interrupted):
            logger.warning("'%s' is not finished. Give the same command again to go on.", folder)
            raise
    logger.info("model: %s", model.path)
    logger.info("report: %s", folder / REPORT)
    logger.info("next: omiad predict %s PHOTOS", model.path)
    return model.path
