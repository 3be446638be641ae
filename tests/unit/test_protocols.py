"""Each preset against a re-implementation from the steps of its source."""

import numpy as np
import pytest
import torch
from references import PROTOCOL_STEPS
from scipy import ndimage
from torch.nn import functional as F  # noqa: N812

from omiad.errors import InputError
from omiad.evaluation.options import EvaluationOptions
from omiad.protocols import ADER, DINOMALY, PROTOCOLS, UNIAD, Protocol


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


def chosen(**options: object) -> Protocol:
    return EvaluationOptions(**options).build_protocol()  # type: ignore[arg-type]


def test_blur_window_and_size_are_options_and_another_size_leaves_out_the_crop() -> None:
    protocol = chosen(protocol="ader", blur_sigma=0, pool_size=16)
    maps = maps_of(256)
    assert torch.equal(protocol.prepare_map(maps), maps)
    expected = F.avg_pool2d(maps[:, None], 16, stride=1).amax((1, 2, 3))
    torch.testing.assert_close(protocol.image_score(maps), expected)
    assert protocol.changes == {"blur_sigma": 0, "pool_size": 16}
    windowed = chosen(protocol="dinomaly", pool_size=3)
    assert windowed.top_fraction == 0
    assert windowed.image_score(maps).shape == (3,)
    resized = chosen(protocol="dinomaly", image_size=128)
    assert (resized.given_size, resized.map_size, resized.crop) == (128, 128, None)


def test_a_model_brings_its_size_and_window_unless_others_are_chosen() -> None:
    model = {"image_size": 448, "pool_size": 32}
    own = EvaluationOptions().build_protocol(**model)
    assert (own.name, own.given_size, own.map_size, own.pool_size) == ("uniad", 448, 448, 32)
    steps = EvaluationOptions(image_size=320, top_fraction=0.01).build_protocol(**model)
    assert (steps.map_size, steps.pool_size, steps.top_fraction) == (320, 16, 0.01)
    assert EvaluationOptions(protocol="ader").build_protocol(**model) == ADER


def test_a_preset_records_each_of_its_steps() -> None:
    for name, protocol in PROTOCOLS.items():
        record = protocol.as_record()
        assert (record["protocol"], record["protocol_changes"]) == (name, {})
        assert protocol.sentence.startswith(f"protocol {name}: input resize")
    assert DINOMALY.steps == {
        "input resize": "448 x 448, bilinear",
        "mask resize": "448 x 448, bilinear, defective above 0",
        "crop": "centre 392 x 392",
        "upsampling": "bilinear, corners aligned",
        "compared at": "256 x 256 (maps bilinear, masks nearest)",
        "blur": "Gaussian, sigma 4, 5 x 5",
        "image score": "mean of the highest 1 % of pixels",
    }
    assert UNIAD.steps["image score"] == "highest mean over 16 x 16 pixels"
    assert ADER.steps["mask resize"] == "256 x 256, bilinear, defective above 0.5 of white"
    assert "(changed)" in chosen(image_size=320).sentence


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "padim"}, "'padim'.* uniad, ader, dinomaly"),
        ({"image_size": 0}, "input_size 0"),
        ({"blur_sigma": -1.0}, "blur_sigma .* -1"),
        ({"top_fraction": 2.0}, r"top_fraction must lie in \[0, 1\], but got 2"),
        ({"pool_size": 4, "top_fraction": 0.1}, "one of --pool_size and --top_fraction"),
        ({"image_size": 8, "pool_size": 16}, "pool_size 16 .* 8 pixels"),
    ],
)
def test_impossible_steps_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EvaluationOptions(**options)  # type: ignore[arg-type]
