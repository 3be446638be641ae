"""A cache serves the features of the images as they are, whatever happened before."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from PIL import Image

from omiad.caching import prune, verify
from omiad.data.images import read_image
from omiad.errors import InputError
from omiad.features import Extraction, FeatureCache, FeatureExtractor
from omiad.features.store import stores
from omiad.types import Sample

EXTRACTOR = FeatureExtractor("test_efficientnet", weights="random", image_size=8, feature_size=1)
NAMES = [f"{i}.bmp" for i in range(5)]


class Interrupted(Exception):  # noqa: N818 (not an error)
    pass


class StoreMachine(RuleBasedStateMachine):
    """Images come, change and go; builds are interrupted, files damaged, caches pruned.

    All images have the same size in bytes and the same modification time.
    """

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.root, self.cache_dir = self.folder / "data", self.folder / "cache"
        self.root.mkdir()
        for colour, name in enumerate(NAMES[:3]):
            self.write(name, 40 * colour)
        self.served_features_are_right()

    @rule(name=st.sampled_from(NAMES), colour=st.integers(0, 255))
    def write(self, name: str, colour: int) -> None:
        Image.fromarray(np.full((8, 8, 3), colour, np.uint8)).save(self.root / name)
        os.utime(self.root / name, ns=(0, 0))

    @rule(name=st.sampled_from(NAMES))
    def remove(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    @rule(after=st.integers(0, 3))
    def interrupted_build(self, after: int) -> None:
        images = self.samples()
        reads = iter(range(after))

        def read(path: Path, size: int) -> torch.Tensor:
            if next(reads, None) is None:
                raise Interrupted
            return read_image(path, size)

        if images:
            with suppress(Interrupted, InputError):
                self.build(images, read)

    @rule(position=st.integers(0, 10_000), kind=st.sampled_from(["rows", "index"]))
    def damaged_bytes_are_never_served(self, position: int, kind: str) -> None:
        for path in self.cache_dir.glob(f"*/*.{kind}"):
            content = bytearray(path.read_bytes())
            if content:
                content[position % len(content)] ^= 255
            path.write_bytes(content)
        self.served_features_are_right()

    @rule(share=st.floats(0, 1), kind=st.sampled_from(["rows", "index"]))
    def truncate(self, share: float, kind: str) -> None:
        for path in self.cache_dir.glob(f"*/*.{kind}"):
            os.truncate(path, int(share * path.stat().st_size))

    @rule()
    def look_after(self) -> None:
        for store in stores(self.cache_dir):
            verify(store)
            prune(store)

    @rule()
    def served_features_are_right(self) -> None:
        images = self.samples()
        if not images:
            return
        try:
            served = list(self.build(images, read_image))
        except InputError as error:
            assert "is damaged" in str(error)  # noqa: PT017 (damage is one of the rules)
            assert sum(len(verify(store)) for store in stores(self.cache_dir))
            served = list(self.build(images, read_image))
        for sample, features in zip(images, served, strict=True):
            assert torch.equal(features, expected(sample.image))

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def samples(self) -> list[Sample]:
        return [Sample(p, (), "nut", "good", "train") for p in sorted(self.root.iterdir())]

    def build(self, samples: list[Sample], read) -> FeatureCache:  # type: ignore[no-untyped-def]
        how = Extraction(EXTRACTOR, read, batch_size=2)
        return FeatureCache(samples, how, root=self.root, cache_dir=self.cache_dir)


def expected(path: Path) -> torch.Tensor:
    return EXTRACTOR.features(read_image(path, 8)[None])[0]


TestStore = StoreMachine.TestCase
checks = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}
TestStore.settings = settings(max_examples=12, stateful_step_count=15, **checks)
