import numpy as np
import pytest
from PIL import Image

from omiad.report import marked, overlay, overlays


@pytest.mark.parametrize("at_once", [1, 700, 2**20])
def test_an_overlay_in_strips_is_the_whole_one(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlays, "_AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (30, 50, 3), np.uint8)
    values = rng.random((8, 8), np.float32)
    drawn = marked(pixels, values, (0.2, 0.9), mask=np.zeros((30, 50), np.bool_))
    full = np.asarray(Image.fromarray(values).resize((50, 30), Image.Resampling.BILINEAR))
    assert np.array_equal(np.asarray(drawn), np.asarray(overlay(pixels, full, (0.2, 0.9))))


def test_an_outline_lies_inside_its_region_also_at_the_edge_of_the_photograph() -> None:
    mask = np.zeros((12, 12), np.bool_)
    mask[0:6, 2:9] = True
    inner = np.zeros_like(mask)
    inner[2:4, 4:7] = True
    assert np.array_equal(overlays.outline(mask, 2), mask & ~inner)
    assert np.array_equal(overlays.outline(inner, 2), inner)
