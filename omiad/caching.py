"""`omiad cache`: build, verify, describe and prune the feature caches of a folder."""

import json as json_format
import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser  # type: ignore[attr-defined]
from rich.console import Console

from omiad.data import FeatureDataModule
from omiad.data.datamodule import _PRECISIONS
from omiad.devices import pick_device
from omiad.errors import InputError, MissingInputError
from omiad.features import upkeep
from omiad.features.building import readable
from omiad.features.store import FeatureStore, stores

logger = logging.getLogger(__name__)

_OF_A_RUN = ("model", "checkpoint", "panels", "run_dir", "save_maps", "ckpt_path")
"""What else stands in a configuration, and does not concern the cache."""

_BUILD_HELP = """\
Compute the features that a run will need, before it runs.

--config takes the configuration of the run, or the config.yaml in its folder; --data.* are the
options of a fit. --trainer.precision is part of what features are kept by. --data.cache all adds
the test images; the size of both is printed, and refused where it does not fit, before any work.
"""


def build_cache(args: Sequence[str]) -> None:
    """Run `omiad cache build` with its options.

    Raises:
        InputError: If the data set or the backbone cannot be used, or the features do not fit.
    """
    parser = ArgumentParser(prog="omiad cache build", description=_BUILD_HELP)
    parser.add_argument("--config", action=ActionConfigFile)
    parser.add_class_arguments(FeatureDataModule, "data", skip={"seed"})
    parser.add_argument("--seed_everything", type=int, default=0, help="Of random weights.")
    parser.add_argument("--trainer", type=dict, default={}, help="Only the precision counts.")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps, or auto.")
    for name in _OF_A_RUN:
        parser.add_argument(f"--{name}", type=Any, default=None, help="Ignored.")
    config = parser.parse_args(list(args))
    data = FeatureDataModule(**vars(config.data), seed=config.seed_everything)
    precision = str((config.trainer or {}).get("precision", "32-true"))
    data.device = pick_device(config.device)
    data.extractor.precision = _PRECISIONS.get(precision, "float32")
    logger.info("%d images are there", data.build_caches())


def cache_info(*, cache_dir: str = "~/.cache/omiad", json: bool = False) -> None:
    """List the feature caches of a folder: what they were made of, by whom they are used.

    Args:
        cache_dir: Folder of all caches.
        json: Print one JSON array instead of lines.

    Raises:
        MissingInputError: If there is no such folder.
    """
    records = [upkeep.describe(store) for store in _stores(cache_dir)]
    console = Console()
    if json:
        console.print(json_format.dumps(records, indent=2), markup=False, soft_wrap=True)
        return
    show = partial(console.print, highlight=False, soft_wrap=True)
    for record in records:
        made_of, used = record["made_of"], record["last_used"]
        day = "never" if used is None else time.strftime("%Y-%m-%d", time.localtime(used))
        precision = made_of["autocast_dtype"].removeprefix("torch.").replace("None", "float32")
        show(
            f"{record['store'][:8]}  {made_of['extractor']['backbone']} in {precision}, "
            f"{made_of['extractor']['image_size']} pixels, {'x'.join(map(str, record['shape']))}: "
            f"{record['images']} images, {readable(record['bytes'])}, last used {day}"
            f"{', unfinished' if record['unfinished'] else ''}"
        )
    total = sum(record["bytes"] for record in records)
    show(f"{readable(total)} in all")


def verify_cache(*, cache_dir: str = "~/.cache/omiad") -> None:
    """Read all cached features and compare their checksums.

    Damaged features are taken out, so that the next fit computes them and only them.

    Args:
        cache_dir: Folder of all caches.

    Raises:
        MissingInputError: If there is no such folder.
        InputError: If there was damage.
    """
    damaged = []
    for store in _stores(cache_dir):
        found = upkeep.verify(store)
        damaged += [damage.row.image for damage in found]
        logger.info(
            "%s: %d images whole, %d damaged", store.folder.name, len(store.index()), len(found)
        )
    if damaged:
        raise InputError(
            f"The cached features of {len(damaged)} images were damaged (the first: "
            f"'{damaged[0]}') and are taken out. The next fit computes them again; check the disk."
        )


def prune_cache(*, cache_dir: str = "~/.cache/omiad", unused_days: float | None = None) -> None:
    """Remove cached features that are of no use any more: of images that changed or went.

    Of each data set and split the features of the last run are kept.

    Args:
        cache_dir: Folder of all caches.
        unused_days: Also remove what no run has used for so many days.

    Raises:
        MissingInputError: If there is no such folder.
    """
    freed = sum(upkeep.prune(store, unused_days) for store in _stores(cache_dir))
    logger.info("%s freed in '%s'", readable(freed), cache_dir)


def _stores(cache_dir: str) -> list[FeatureStore]:
    folder = Path(cache_dir).expanduser()
    if not folder.is_dir():
        raise MissingInputError(f"No feature caches at '{folder}'. Check --cache_dir.")
    return stores(folder)
