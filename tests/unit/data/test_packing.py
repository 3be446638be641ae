import pickle
from pathlib import Path

import pytest

from omiad.data.packing import PackedSamples
from omiad.types import Sample

SAMPLES = [
    Sample(Path("/a/0.png"), None, "nut", "good", "train"),
    Sample(
        Path("/a/\u00fc\n.jpg"), Path("/m/1.png"), "nut", "d\u00e9faut", "test", "nut_0001_NG", 3
    ),
    Sample(Path("2.png"), None, "x", "bad", "test"),
]


def test_packed_samples_are_the_samples():
    packed = PackedSamples(SAMPLES)
    assert list(packed) == SAMPLES
    assert packed[-1] == SAMPLES[-1]
    assert packed[1:] == SAMPLES[1:]
    assert list(pickle.loads(pickle.dumps(packed))) == SAMPLES
    assert len(PackedSamples([])) == 0


def test_there_are_no_more_than_that():
    packed = PackedSamples(SAMPLES)
    for index in (3, -4):
        with pytest.raises(IndexError):
            packed[index]
