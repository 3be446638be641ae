"""Each preset against a re-implementation from the steps of its source."""

import numpy as np
import pytest
import torch
from references import PROTOCOL_STEPS
from scipy import ndimage
from torch.nn import functional as F  # noqa: N812

from omiad.errors import InputError
from omiad.protocols import ADER, DINOMALY, PROTOCOLS, UNIAD, find_protocol


@pytest.fixture
def mask() -> np.ndarray:
    rng = np.random.default_rng(0)
    mask = ndimage.binary_dilation(rng.random((301, 517)) > 0.9995, iterations=6)
    mask[100, 40] = True  # a defect of a single pixel
    return mask


def maps_of(size: int) -> torch.Tensor:
    return torch.rand(3, size, size, generator=torch.Generator().manual_seed(0)) - 0.5


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_preset_does_what_its_source_does(name: str, mask: np.ndarray) -> None:
    protocol, (steps, side) = PROTOCOLS[name], PROTOCOL_STEPS[name]
    assert protocol.given_size == side
    maps = maps_of(side)
    prepared = protocol.prepare_map(maps)
    scores = protocol.image_score(prepared)
    for i, pixels in enumerate(maps.numpy()):
        expected_map, expected_mask, expected_score = steps(pixels, mask)
        np.testing.assert_allclose(prepared[i], expected_map, atol=1e-6)
        np.testing.assert_array_equal(protocol.prepare_mask(mask), expected_mask)
        assert scores[i].item() == pytest.approx(expected_score, abs=1e-5)


def test_aders_blur_and_pooling_are_arguments() -> None:
    protocol = find_protocol("ader", blur_sigma=0, pool_size=16)
    maps = maps_of(256)
    assert torch.equal(protocol.prepare_map(maps), maps)
    expected = F.avg_pool2d(maps[:, None], 16, stride=1).amax((1, 2, 3))
    torch.testing.assert_close(protocol.image_score(maps), expected)
    assert protocol.changes == {"blur_sigma": 0, "pool_size": 16}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_preset_lists_each_of_its_steps(name: str) -> None:
    record = PROTOCOLS[name].as_record()
    assert record["protocol"] == name
    assert record["protocol_changes"] == {}
    assert set(record["protocol_steps"]) == {
        "input resize",
        "mask resize",
        "crop",
        "upsampling",
        "compared at",
        "blur",
        "image score",
    }
    assert PROTOCOLS[name].sentence.startswith(f"protocol {name}: input resize")


def test_the_steps_say_what_is_done() -> None:
    steps = DINOMALY.steps
    assert steps["crop"] == "centre 392 x 392"
    assert steps["compared at"] == "256 x 256 (maps bilinear, masks nearest)"
    assert steps["image score"] == "mean of the highest 1 % of pixels"
    assert UNIAD.steps["image score"] == "highest mean over 16 x 16 pixels"
    assert ADER.steps["mask resize"] == "256 x 256, bilinear, defective above 0.5 of white"
    assert "(changed)" in find_protocol("uniad", image_size=320).sentence


def test_a_size_of_ones_own_leaves_out_the_crop() -> None:
    protocol = find_protocol("dinomaly", image_size=128)
    assert protocol.given_size == protocol.map_size == 128
    assert find_protocol("dinomaly", pool_size=3).image_score(maps_of(256)).shape == (3,)
    assert find_protocol("dinomaly", pool_size=3).top_fraction == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "padim"}, "No protocol 'padim'. Choose one of uniad, ader, dinomaly"),
        ({"name": "uniad", "image_size": 0}, "sizes of at least 1, but got input_size 0"),
        ({"name": "uniad", "blur_sigma": -1.0}, "blur_sigma must be finite and not negative"),
        ({"name": "uniad", "top_fraction": 2.0}, r"top_fraction must lie in \[0, 1\], but got 2"),
        ({"name": "uniad", "pool_size": 4, "top_fraction": 0.1}, "Give one of --pool_size and"),
        ({"name": "uniad", "image_size": 8}, "pool_size 16 is larger than the maps of 8 pixels"),
    ],
)
def test_impossible_steps_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_protocol(**arguments)  # type: ignore[arg-type]
