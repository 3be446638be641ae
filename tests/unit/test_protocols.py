"""Each preset against a re-implementation from the steps of its source."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch.nn import functional as F  # noqa: N812
from torchvision import transforms as T  # noqa: N812

from omiad.errors import InputError
from omiad.protocols import ADER, DINOMALY, PROTOCOLS, UNIAD, find_protocol


@pytest.fixture
def mask() -> np.ndarray:
    rng = np.random.default_rng(0)
    mask = ndimage.binary_dilation(rng.random((301, 517)) > 0.9995, iterations=6)
    mask[100, 40] = True  # a defect of a single pixel
    return mask


def white(mask: np.ndarray) -> Image.Image:
    return Image.fromarray((255 * mask).astype(np.uint8))


def maps_of(size: int) -> torch.Tensor:
    return torch.rand(3, size, size, generator=torch.Generator().manual_seed(0)) - 0.5


def test_uniad_picks_mask_pixels_and_takes_the_highest_window(mask: np.ndarray) -> None:
    rows = np.floor((np.arange(224) + 0.5) * 301 / 224).astype(int)
    columns = np.floor((np.arange(224) + 0.5) * 517 / 224).astype(int)
    np.testing.assert_array_equal(UNIAD.prepare_mask(mask), mask[np.ix_(rows, columns)])
    maps = maps_of(224)
    assert torch.equal(UNIAD.prepare_map(maps), maps)
    windows = np.lib.stride_tricks.sliding_window_view(maps.numpy(), (16, 16), axis=(1, 2))
    expected = windows.mean((-1, -2), dtype=np.float64).max((1, 2))
    np.testing.assert_allclose(UNIAD.image_score(maps), expected, rtol=1e-4)


def test_ader_binarises_at_half_and_blurs_by_scipy(mask: np.ndarray) -> None:
    steps = T.Compose([T.Resize((256, 256)), T.ToTensor()])
    expected = steps(white(mask))[0] > 0.5
    np.testing.assert_array_equal(ADER.prepare_mask(mask), expected)
    maps = maps_of(256)
    blurred = np.stack([ndimage.gaussian_filter(x, sigma=4) for x in maps.numpy()])
    np.testing.assert_allclose(ADER.prepare_map(maps), blurred, atol=1e-6)
    scores = ADER.image_score(ADER.prepare_map(maps))
    np.testing.assert_allclose(scores, blurred.max((1, 2)), atol=1e-6)


def test_aders_blur_and_pooling_are_arguments() -> None:
    protocol = find_protocol("ader", blur_sigma=0, pool_size=16)
    maps = maps_of(256)
    assert torch.equal(protocol.prepare_map(maps), maps)
    expected = F.avg_pool2d(maps[:, None], 16, stride=1).amax((1, 2, 3))
    torch.testing.assert_close(protocol.image_score(maps), expected)
    assert protocol.changes == {"blur_sigma": 0, "pool_size": 16}


def test_dinomaly_crops_and_compares_at_256(mask: np.ndarray) -> None:
    steps = T.Compose([T.Resize((448, 448)), T.CenterCrop(392), T.ToTensor()])
    grey = F.interpolate(steps(white(mask))[None], size=256, mode="nearest")
    np.testing.assert_array_equal(DINOMALY.prepare_mask(mask), grey[0, 0].bool())
    maps = maps_of(392)
    small = F.interpolate(maps[:, None], size=256, mode="bilinear", align_corners=False)
    kernel = torch.tensor(
        [
            [math.exp(-((x - 2) ** 2 + (y - 2) ** 2) / (2 * 4**2)) for x in range(5)]
            for y in range(5)
        ]
    )
    blurred = F.conv2d(small, (kernel / kernel.sum())[None, None], padding=2)[:, 0]
    prepared = DINOMALY.prepare_map(maps)
    torch.testing.assert_close(prepared, blurred, atol=1e-6, rtol=1e-5)
    top = blurred.flatten(1).sort(dim=1, descending=True).values[:, : int(256 * 256 * 0.01)]
    torch.testing.assert_close(DINOMALY.image_score(prepared), top.mean(1))


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
        ({"name": "uniad", "image_size": 8}, "pool_size 16 is larger than the maps of 8 pixels"),
    ],
)
def test_impossible_steps_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_protocol(**arguments)  # type: ignore[arg-type]
