import pickle
from pathlib import Path

import pytest

from omiad.data.packing import PackedSamples
from omiad.types import Sample

STRANGE = ("/a/\u00fc\n.jpg", "/m/1.png")
SAMPLES = [
    Sample(Path("/a/0.png"), (), "nut", "good", "train"),
    Sample(Path(STRANGE[0]), (Path(STRANGE[1]),), "nut", "d\u00e9faut", "test", "nut_0001_NG", 3),
    Sample(Path("2.png"), (), "x", "bad", "test"),
]


def test_packed_samples_are_the_samples():
    packed = PackedSamples(SAMPLES)
    assert list(packed) == list(pickle.loads(pickle.dumps(packed))) == SAMPLES
    assert packed[-1] == SAMPLES[-1]
    assert packed[1:] == SAMPLES[1:]
    assert len(PackedSamples([])) == 0
    for index in (3, -4):
        with pytest.raises(IndexError):
            packed[index]
