"""`omiad cache`: build, list, verify and prune the feature caches of a folder."""

import json as json_format
import logging
import os
import shutil
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser  # type: ignore[attr-defined]

from omiad.arguments import refuse_nulls
from omiad.data import FeatureDataModule
from omiad.devices import pick_device
from omiad.errors import InputError, MissingInputError
from omiad.features.cache import readable
from omiad.features.records import read_use
from omiad.features.store import (
    GONE,
    INDEX,
    ROWS,
    FeatureStore,
    crc_of,
    map_rows,
    stores,
)
from omiad.files import expanded, full_disk_named
from omiad.names import one_line
from omiad.terminal import console

logger = logging.getLogger(__name__)

_ABANDONED = 3600  # seconds after which no process can still be writing a temporary file

_BUILD_HELP = """\
Compute the features that a run needs before it starts.

--config takes the configuration of the run, or config.yaml in the folder of a run. --data.* are the
options of `omiad fit`. --trainer.precision counts too: features of each precision are kept apart.
--data.cache all adds the test images. The size is printed before any work, and refused if it does
not fit on the disk.
"""


def build_cache(args: Sequence[str]) -> None:
    """Run `omiad cache build` with its options."""
    parser = ArgumentParser(prog="omiad cache build", description=_BUILD_HELP, exit_on_error=False)
    parser.add_argument("--config", action=ActionConfigFile)
    parser.add_class_arguments(FeatureDataModule, "data", skip={"seed"})
    parser.add_argument("--seed_everything", type=int, default=0, help="Seed of random weights.")
    parser.add_argument("--trainer", type=dict, default={}, help="Only the precision counts.")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps, or auto.")
    for name in ("model", "checkpoint", "run_dir", "ckpt_path"):  # of a run, not of its features
        parser.add_argument(f"--{name}", type=Any, default=None, help="Ignored.")
    config = parser.parse_args(list(args))
    refuse_nulls(FeatureDataModule, config.data, where="data")
    data = FeatureDataModule(**vars(config.data), seed=config.seed_everything)
    extractor = data.build_extractor((config.trainer or {}).get("precision"))
    data.use_extractor(extractor.to(pick_device(config.device)))
    logger.info("%d images are there", data.build_caches())


def cache_info(*, cache_dir: str = "~/.cache/omiad", json: bool = False) -> None:
    """List the feature caches of a folder: data set, extractor, size and last use.

    Args:
        cache_dir: Folder of all caches.
        json: Print one JSON array instead of lines.
    """
    records = [describe(store) for store in _stores(cache_dir)]
    show = partial(console().print, soft_wrap=True)
    if json:
        show(json_format.dumps(records, indent=2))
        return
    for record in records:
        made_of, used = record["made_of"], record["last_used"]
        day = "never" if used is None else time.strftime("%Y-%m-%d", time.localtime(used))
        line = (
            f"{record['store'][:8]}  {record['root']}{'' if record['root_exists'] else ' (gone)'}: "
            f"{made_of['backbone']} in {made_of['precision']}, {made_of['image_size']} pixels, "
            f"{'x'.join(map(str, record['shape']))}: {record['images']} images, "
            f"{readable(record['bytes'])}, {' and '.join(record['splits']) or 'unfinished'}, "
            f"last used {day}"
        )
        show(one_line(line))
    show(f"{readable(sum(record['bytes'] for record in records))} in total")


def verify_cache(*, cache_dir: str = "~/.cache/omiad") -> None:
    """Read all cached features and compare their checksums.

    Damaged features are removed, so that the next fit computes those images again and no others.

    Args:
        cache_dir: Folder of all caches.
    """
    damaged = []
    for store in _stores(cache_dir):
        found = verify(store)
        damaged += [str(store.root / image) for image in found]
        whole = len(store.entries)
        logger.info("%s: %d images whole, %d damaged", store.root, whole, len(found))
    if damaged:
        raise InputError(
            f"The cached features of {len(damaged)} images were damaged (the first: "
            f"'{damaged[0]}') and have been removed. The next fit computes them again; check the "
            f"disk."
        )


def prune_cache(*, cache_dir: str = "~/.cache/omiad", unused_days: float | None = None) -> None:
    """Remove cached features that the last run of each split did not use.

    These are features of images that were changed or removed since. `omiad cache info` shows caches
    whose data set is gone; delete their folders if the data set will not come back.

    Args:
        cache_dir: Folder of all caches.
        unused_days: Also remove features that no run has used for this many days.
    """
    freed = sum(prune(store, unused_days) for store in _stores(cache_dir))
    for leftover in expanded(cache_dir).glob(f".*{GONE}"):  # of a killed pruning
        shutil.rmtree(leftover, ignore_errors=True)
    logger.info("%s freed in '%s'", readable(freed), cache_dir)


def describe(store: FeatureStore) -> dict[str, Any]:
    """Describe a store as plain data."""
    used = {path.stem: path.stat().st_mtime for path in store.split_paths}
    return {
        "store": store.folder.name,
        "root": str(store.root),
        "root_exists": store.root.exists(),
        "made_of": store.made_of,
        "shape": list(store.shape),
        "images": len(store.entries),
        "bytes": num_bytes(store),
        "splits": list(used),
        "last_used": max(used.values(), default=None),
    }


def num_bytes(store: FeatureStore) -> int:
    """Return the size of all files of a store."""
    return sum(path.stat().st_size for path in store.folder.iterdir())


def verify(store: FeatureStore) -> list[str]:
    """Remove the entries of damaged rows, so that they are computed again; return their images."""
    with store.locked():
        before = store.entries
        rows = map_rows(store.path, store.shape) if before else ()
        whole = [entry for entry in before.values() if crc_of(rows[entry.row]) == entry.crc]
        store.replace_index(store.path, whole)
    return [image for image in before if image not in store.entries]


def prune(store: FeatureStore, unused_days: float | None = None) -> int:
    """Remove rows that the last run of no split needs; return the number of bytes freed.

    A split that was not used for `unused_days` needs nothing. The rows that stay are copied to a
    new file, which replaces the old one as soon as its index is there; a process that has mapped
    the old file keeps its own view of it.
    """
    before = num_bytes(store)
    with store.locked():
        for leftover in store.folder.glob(".*.part"):  # of a process killed while it wrote JSON
            if time.time() - leftover.stat().st_mtime > _ABANDONED:
                leftover.unlink()
        needed: set[str] = set()
        for path in store.split_paths:
            age, use = time.time() - path.stat().st_mtime, read_use(path)
            if unused_days is not None and age > unused_days * 86400:
                path.unlink()
            else:  # if the file is damaged, any image may be needed
                needed.update(store.entries if use is None else use["images"])
        if not store.split_paths:
            store.remove()
            return before
        kept = [entry for image, entry in store.entries.items() if image in needed]
        if store.num_rows > len(kept):
            old, new = store.path, store.folder / f"{int(store.path.stem) + 1}{ROWS}"
            rows = map_rows(old, store.shape)
            with full_disk_named(new), new.open("wb") as file:
                for entry in kept:
                    file.write(rows[entry.row].numpy().data.cast("B"))
                file.flush()
                os.fsync(file.fileno())
            store.replace_index(new, [entry._replace(row=i) for i, entry in enumerate(kept)])
            old.with_suffix(INDEX).unlink()
            old.unlink()
    return before - num_bytes(store)


def _stores(cache_dir: str) -> list[FeatureStore]:
    folder = expanded(cache_dir)
    if not folder.is_dir():
        raise MissingInputError(f"No feature caches at '{folder}'. Check --cache_dir.")
    return stores(folder)
