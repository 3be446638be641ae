"""A feature store serves the features of the images as they are, whatever was done before."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from PIL import Image

from omiad.data.images import read_image
from omiad.errors import InputError
from omiad.features import Build, FeatureCache, FeatureExtractor
from omiad.features.shards import map_rows
from omiad.features.store import stores
from omiad.features.upkeep import prune, verify
from omiad.types import Sample

EXTRACTOR = FeatureExtractor("test_efficientnet", weights="random", image_size=8, feature_size=1)
NAMES = [f"{i}.png" for i in range(5)]


class Interrupted(Exception):  # noqa: N818 (not an error)
    pass


class StoreMachine(RuleBasedStateMachine):
    """Images come, change and go; builds are interrupted, files damaged, caches pruned."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.root, self.cache_dir = self.folder / "data", self.folder / "cache"
        self.root.mkdir()
        self.time = 0
        for colour, name in enumerate(NAMES[:3]):
            self.write(name, 40 * colour)
        self.served_features_are_right("stat")

    @rule(name=st.sampled_from(NAMES), colour=st.integers(0, 255))
    def write(self, name: str, colour: int) -> None:
        Image.fromarray(np.full((8, 8, 3), colour, np.uint8)).save(self.root / name)
        self.time += 1  # the clock of a file system may be coarse
        os.utime(self.root / name, ns=(self.time, self.time))

    @rule(name=st.sampled_from(NAMES))
    def remove(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    @rule(after=st.integers(0, 3), key=st.sampled_from(["stat", "content"]))
    def interrupted_build(self, after: int, key: str) -> None:
        images = self.samples()
        reads = iter(range(after))

        def read(path: Path, size: int) -> torch.Tensor:
            if next(reads, None) is None:
                raise Interrupted
            return read_image(path, size)

        if images:
            with suppress(Interrupted, InputError):
                self.build(images, read, key)

    @rule(position=st.integers(0, 10_000), key=st.sampled_from(["stat", "content"]))
    def damaged_bytes_are_never_served(self, position: int, key: str) -> None:
        for rows in sorted(self.cache_dir.glob("*/*.rows"))[:1]:
            with rows.open("r+b") as file:
                file.seek(position % max(1, rows.stat().st_size))
                byte = file.read(1)
                file.seek(-len(byte), os.SEEK_CUR)
                file.write(bytes(value ^ 255 for value in byte))
        self.served_features_are_right(key)

    @rule(share=st.floats(0, 1))
    def truncate(self, share: float) -> None:
        for rows in sorted(self.cache_dir.glob("*/*.rows"))[-1:]:
            os.truncate(rows, int(share * rows.stat().st_size))

    @rule()
    def look_after(self) -> None:
        for store in stores(self.cache_dir):
            verify(store)
            prune(store)

    @rule(key=st.sampled_from(["stat", "content"]))
    def served_features_are_right(self, key: str) -> None:
        images = self.samples()
        if not images:
            return
        try:
            cache = self.build(images, read_image, key)
            served = [cache[i] for i in range(len(images))]
        except InputError as error:
            assert "is damaged" in str(error)  # noqa: PT017 (damage is one of the rules)
            assert sum(len(verify(store)) for store in stores(self.cache_dir))
            cache = self.build(images, read_image, key)
            served = [cache[i] for i in range(len(images))]
        for sample, features in zip(images, served, strict=True):
            assert torch.equal(features, expected(sample.image))

    @invariant()
    def no_row_reaches_beyond_its_file(self) -> None:
        for store in stores(self.cache_dir) if hasattr(self, "cache_dir") else []:
            for place in store.index().values():
                rows = map_rows(store.folder / f"{place.shard}.rows", store.shape)
                assert place.position < len(rows)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def samples(self) -> list[Sample]:
        return [Sample(p, None, "nut", "good", "train") for p in sorted(self.root.iterdir())]

    def build(self, samples: list[Sample], read, key) -> FeatureCache:  # type: ignore[no-untyped-def]
        how = Build(EXTRACTOR, read, batch_size=2, progress=False)
        return FeatureCache.open_or_build(
            samples, how, root=self.root, cache_dir=self.cache_dir, key=key
        )


def expected(path: Path) -> torch.Tensor:
    return Build(EXTRACTOR, read_image, batch_size=2).features(read_image(path, 8)[None])[0]


@pytest.fixture(autouse=True)
def shards_of_two_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omiad.features.shards.SHARD_BYTES", 1)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=30,
    stateful_step_count=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
