"""Maintenance of feature stores: what one holds, whether it is whole, what may go."""

import json
import os
import shutil
import time
from collections.abc import Iterable
from typing import Any

from omiad.features.store import INDEX, ROWS, Entry, FeatureStore, crc_of, map_rows


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
    """Remove the entries of damaged rows, which the next build computes; return their images."""
    with store.locked():
        before = store.entries
        store.replace_index(store.path, _whole(store, before.values()))
    return [image for image in before if image not in store.entries]


def prune(store: FeatureStore, unused_days: float | None = None) -> int:
    """Remove rows that the last run of no split needs; return the number of bytes freed.

    A split that was not used for `unused_days` needs nothing. The rows that stay are copied to a
    new file, which replaces the old one as soon as its index is there; a process that has mapped
    the old file keeps its own view of it.
    """
    before = num_bytes(store)
    with store.locked():
        for leftover in store.folder.glob("*.new"):  # of a process killed while it wrote JSON
            leftover.unlink()
        needed: set[str] = set()
        for path in store.split_paths:
            if unused_days is not None and time.time() - path.stat().st_mtime > unused_days * 86400:
                path.unlink()
            else:
                needed.update(json.loads(path.read_text())["images"])
        if not store.split_paths:
            shutil.rmtree(store.folder)
            return before
        kept = [entry for image, entry in store.entries.items() if image in needed]
        if store.num_rows > len(kept):
            old, new = store.path, store.folder / f"{int(store.path.stem) + 1}{ROWS}"
            rows, kept = map_rows(old, store.shape), _whole(store, kept)
            with new.open("wb") as file:
                for entry in kept:
                    file.write(rows[entry.row].numpy().data.cast("B"))
                file.flush()
                os.fsync(file.fileno())
            store.replace_index(new, [entry._replace(row=i) for i, entry in enumerate(kept)])
            old.with_suffix(INDEX).unlink()
            old.unlink()
    return before - num_bytes(store)


def _whole(store: FeatureStore, entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries whose row has the CRC-32 that was written."""
    if not store.entries:
        return []
    rows = map_rows(store.path, store.shape)
    return [entry for entry in entries if crc_of(rows[entry.row]) == entry.crc]
