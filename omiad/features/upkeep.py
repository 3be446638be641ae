"""Looking after feature stores: what is there, whether it is whole, what nobody needs."""

import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from omiad.features.building import mend
from omiad.features.shards import ROWS, Row, ShardWriter, content_of, map_rows
from omiad.features.store import VIEWS, FeatureStore, read_json


class Damage(NamedTuple):
    """A row whose bytes are not those that were written.

    Attributes:
        shard: Index of its shard.
        row: Its line.
    """

    shard: Path
    row: Row


def find_damage(store: FeatureStore) -> Iterator[Damage]:
    """Read all rows of a store and yield the damaged ones; truncated shards are mended before."""
    for index, rows in store.rows():
        mapped = map_rows(index.with_suffix(ROWS), store.shape)
        for row in rows:
            if zlib.crc32(content_of(mapped[row.position])) != row.crc:
                yield Damage(index, row)


def verify(store: FeatureStore) -> list[Damage]:
    """Take damaged rows out of a store, so that the next build computes them; return them."""
    with store.locked():
        mend(store)
        damaged = list(find_damage(store))
        for shard in {damage.shard for damage in damaged}:
            store.drop(shard, {d.row.position for d in damaged if d.shard == shard})
    return damaged


def stale_views(store: FeatureStore, unused_days: float | None) -> list[Path]:
    """Return the lists of images that a later one of the same data set and split replaced.

    Args:
        store: The store.
        unused_days: Also return those not used for so many days.
    """
    newest: dict[str, Path] = {}
    views = sorted((store.folder / VIEWS).glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in views:
        newest[read_json(path)["name"]] = path
    kept = set(newest.values())
    if unused_days is not None:
        oldest = time.time() - unused_days * 86400
        kept = {path for path in kept if path.stat().st_mtime >= oldest}
    return [path for path in views if path not in kept]


def prune(store: FeatureStore, unused_days: float | None = None) -> int:
    """Remove rows that no list of images needs; return the number of bytes freed.

    Rows of a shard that others need are written to a new one before the shard goes.
    """
    before = store.num_bytes()
    with store.locked():
        mend(store)
        for path in (*stale_views(store, unused_days), *(store.folder / VIEWS).glob("*.new")):
            path.unlink()
        needed: set[str] = set()
        for path in (store.folder / VIEWS).glob("*.json"):
            needed.update(read_json(path)["keys"])
        for index, rows in list(store.rows()):
            kept = [row for row in rows if row.key in needed]
            if len(kept) < len(rows):
                _rewrite(store, index, kept)
    if not needed:
        shutil.rmtree(store.folder)
        return before
    return before - store.num_bytes()


def describe(store: FeatureStore) -> dict[str, Any]:
    """Say what a store holds, as plain data."""
    views = [(path, read_json(path)) for path in (store.folder / VIEWS).glob("*.json")]
    return {
        "store": store.folder.name,
        "made_of": store.made_of,
        "shape": list(store.shape),
        "images": len(store.index()),
        "bytes": store.num_bytes(),
        "unfinished": store.is_unfinished(),
        "used_by": sorted({view["name"] for _, view in views}),
        "last_used": max((path.stat().st_mtime for path, _ in views), default=None),
    }


def _rewrite(store: FeatureStore, index: Path, kept: list[Row]) -> None:
    if kept:
        mapped = map_rows(index.with_suffix(ROWS), store.shape)
        with ShardWriter(store.folder, store.row_bytes) as shard:
            for row in kept:
                content = mapped[row.position : row.position + 1]
                if zlib.crc32(content_of(content)) == row.crc:
                    shard.append(content, [(row.key, row.image)])
    store.remove(index)
