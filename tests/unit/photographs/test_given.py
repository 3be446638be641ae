"""Photographs in memory are read like the files that hold the same pixels."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from png import png_16_bit

from omiad.errors import InputError, MissingInputError
from omiad.photographs import Reader, is_one, read_image

READER = Reader(8)
NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
WIDE = np.random.default_rng(1).integers(0, 65_536, (20, 30), dtype=np.uint16)


def photographs(folder: Path) -> dict[str, Path]:
    """Write a photograph of every kind."""
    colour, grey = Image.fromarray(NOISE[..., :3]), Image.fromarray(NOISE[..., 0])
    rotated, transparent = Image.Exif(), Image.fromarray(NOISE).quantize(16)
    rotated[0x0112] = 6
    kinds: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "colour.png": (colour, {}),
        "colour.jpg": (colour, {}),
        "grey.png": (grey, {}),
        "two_levels.png": (grey.convert("1"), {}),
        "grey_alpha.png": (Image.fromarray(NOISE[..., :2].copy()), {}),
        "rgba.png": (Image.fromarray(NOISE), {}),
        "palette.png": (colour.quantize(16), {}),
        "transparent_palette.png": (transparent, {"transparency": bytes(range(16))}),
        "cmyk.jpg": (colour.convert("CMYK"), {}),
        "cmyk.tif": (colour.convert("CMYK"), {}),
        "rotated.jpg": (colour, {"exif": rotated}),
        "rotated.png": (grey, {"exif": rotated}),
        "rotated.tif": (colour, {"exif": rotated}),
        "wide.png": (Image.fromarray(WIDE), {}),
        "wide.tif": (Image.fromarray(WIDE), {}),
    }
    for name, (image, options) in kinds.items():
        image.save(folder / name, **options)
    (folder / "wide_colour.png").write_bytes(png_16_bit(WIDE.reshape(10, 20, 3)))
    return {path.name: path for path in sorted(folder.iterdir())}


def test_an_image_of_pillow_is_read_like_its_file(tmp_path: Path) -> None:
    for name, path in photographs(tmp_path).items():
        expected, size = READER.read(path)
        assert torch.equal(expected, read_image(path, 8))
        with Image.open(path) as image:
            read, its_size = READER.read(image)
            assert torch.equal(read, expected), name
            assert its_size == size
            assert torch.equal(READER.read(image)[0], expected), f"{name}, decoded before"


def test_an_array_is_read_like_the_file_that_holds_its_pixels(tmp_path: Path) -> None:
    for name, path in photographs(tmp_path).items():
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
        if upright.mode in ("1", "P", "CMYK", "LA"):  # an array does not say what these mean
            upright = upright.convert("RGBA").convert("RGB")
        read, size = READER.read(np.asarray(upright))
        assert torch.equal(read, READER.read(path)[0]), name
        assert size == READER.read(path)[1]


@pytest.mark.parametrize("white_level", [65_535, 4095])
def test_16_bit_arrays_have_the_white_level_of_files(tmp_path: Path, white_level: int) -> None:
    reader, dim = Reader(8, white_level=white_level), (WIDE // 16).astype(np.uint16)
    Image.fromarray(dim).save(tmp_path / "a.png")
    expected = reader.read(tmp_path / "a.png")[0]
    for given in (
        dim,
        dim[..., None],
        dim.astype(">u2"),
        torch.from_numpy(dim),
        Image.fromarray(dim),
    ):
        assert torch.equal(reader.read(given)[0], expected)


def test_16_bit_colour_keeps_its_high_byte_unless_a_white_level_is_given(tmp_path: Path) -> None:
    pixels = WIDE.reshape(10, 20, 3)
    path = tmp_path / "a.png"
    path.write_bytes(png_16_bit(pixels))
    assert torch.equal(READER.read(pixels)[0], READER.read(path)[0])
    with Image.open(path) as image:
        for given in (path, pixels, image):
            with pytest.raises(InputError, match=r"has 16-bit colour.*white_level 4095"):
                Reader(8, white_level=4095).read(given)


@pytest.mark.parametrize("channels", [None, 1, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_arrays_and_tensors_of_any_type_and_order_are_the_same_photograph(
    channels: int | None, dtype: str
) -> None:
    pixels = NOISE[..., 0] if channels is None else NOISE[..., :channels].copy()
    expected = READER.read(pixels)[0]
    given = pixels if dtype == "uint8" else (pixels / 255).astype(dtype)
    tensors = [torch.from_numpy(given)]
    if channels is not None:
        tensors.append(tensors[0].permute(2, 0, 1))
    for each in (given, given[::-1][::-1], np.asfortranarray(given), *tensors):
        assert torch.equal(READER.read(each)[0], expected)


def test_floats_of_16_bit_pixels_are_read_like_these() -> None:
    for dtype in (np.float32, np.float64):
        floats = WIDE.astype(dtype) / dtype(65_535)
        assert torch.equal(READER.read(floats)[0], READER.read(WIDE)[0])


def test_tensors_of_training_are_read_too() -> None:
    tensor = torch.from_numpy(NOISE / np.float32(255)).permute(2, 0, 1)
    expected = READER.read(tensor)[0]
    assert torch.equal(READER.read(tensor.clone().requires_grad_())[0], expected)
    half = (tensor > 0.5).to(torch.bfloat16)
    assert torch.equal(READER.read(half)[0], READER.read(half.float())[0])


def test_a_tensor_of_either_order_has_its_channels_first() -> None:
    tensor = torch.from_numpy(NOISE[:3, :, :3].copy())  # (3, 30, 3)
    expected, size = READER.read(tensor.permute(1, 2, 0).numpy())
    read, its_size = READER.read(tensor)
    assert torch.equal(read, expected)
    assert its_size == size == (3, 30)


@pytest.mark.parametrize("channels", [3, 4])
def test_the_colours_of_opencv_are_put_in_order(channels: int) -> None:
    frame = NOISE[..., [2, 1, 0, 3][:channels]]
    expected = READER.read(NOISE[..., :3])[0]
    bgr = Reader(8, color="bgr")
    assert torch.equal(bgr.read(frame)[0], expected)
    assert torch.equal(bgr.read(torch.from_numpy(frame.copy()))[0], expected)
    assert torch.equal(bgr.read(Image.fromarray(NOISE))[0], expected)
    assert torch.equal(bgr.read(NOISE[..., 0])[0], READER.read(NOISE[..., 0])[0])


def test_reading_leaves_the_pixels_that_were_given_as_they_are() -> None:
    pixels, before = NOISE.copy(), NOISE.copy()
    Reader(8, color="bgr").read(pixels)[0].zero_()
    READER.read(torch.from_numpy(pixels[..., :3]))[0].zero_()
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (
            np.zeros((4, 5), np.int64),
            "an array of int64 and shape (4, 5). Give (H, W) or (H, W, C)",
        ),
        (np.zeros((4, 5), bool), "an array of bool"),
        (np.zeros((4, 5), complex), "complex128"),
        (np.array([["a.png"]], object), "object"),
        (np.zeros((4, 5, 2), np.uint8), "shape (4, 5, 2)"),
        (np.zeros((3, 4, 5), np.uint8), "shape (3, 4, 5)"),
        (np.zeros((2, 4, 5, 3), np.uint8), "Give several photographs as a list."),
        (np.zeros(4, np.uint8), "shape (4,)"),
        (np.zeros((0, 4), np.uint8), "shape (0, 4)"),
        (np.float64(3), "is of type float64"),
        (np.array([[0, np.nan]]), "holds NaN. Give floats in 0..1."),
        (np.array([[0, np.inf]]), "holds floats from 0 to inf"),
        (np.array([[0.0, 255.0]]), "holds floats from 0 to 255. Give floats in 0..1"),
        (torch.full((4, 5), -0.5), "holds floats from -0.5 to -0.5"),
        (torch.zeros(4, 5, dtype=torch.int32), "a tensor of int32 and shape (4, 5)"),
        (torch.zeros(4, 5, dtype=torch.complex64), "complex64"),
        (torch.zeros(2, 3, 4, 5), "(H, W, C) or (C, H, W)"),
        (torch.zeros(4, 5, device="meta"), "a tensor of float32"),
        (torch.zeros(4, 5).to_sparse(), "a tensor of float32"),
        (None, "is of type NoneType. Give a path, an image of Pillow, a numpy array"),
        (b"a.png", "is of type bytes"),
        (Image.fromarray(np.zeros((4, 5), np.float32)), "has floating-point pixels"),
    ],
)
def test_what_is_no_photograph_is_named_with_what_is(given: Any, named: str) -> None:
    with pytest.raises(InputError, match=rf"^The photograph .*{re.escape(named)}"):
        READER.read(given)


def test_a_damaged_file_is_refused_as_an_image_of_pillow_too(tmp_path: Path) -> None:
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-500])
    with pytest.raises(InputError, match=r"^'.*a\.png' cannot be read as an image"):
        READER.read(tmp_path / "a.png")
    message = r"^The photograph cannot be read as an image \(.+\)"
    with Image.open(tmp_path / "a.png") as image, pytest.raises(InputError, match=message):
        READER.read(image)
    with pytest.raises(MissingInputError, match="gone"):
        READER.read("gone.png")
    with pytest.raises(InputError, match="a folder"):
        READER.read(tmp_path)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Reader(8, batch_size=0), "batch_size must be .* but got 0"),
        (lambda: Reader(8, batch_size=2.5), "batch_size must be .* but got 2.5"),  # type: ignore[arg-type]
        (lambda: Reader(8, color="BGR"), "color must be one of rgb, bgr, but got 'BGR'"),  # type: ignore[arg-type]
        (lambda: is_one([]), "no photograph in an empty list"),
        (lambda: is_one({"a.png"}), "of type set"),
    ],
)
def test_what_a_reader_cannot_do_is_named(make: Callable[[], object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        make()


def test_batches_come_one_at_a_time_and_before_the_photograph_that_is_refused() -> None:
    taken = []

    def camera() -> Any:
        for number, each in enumerate([NOISE, NOISE[..., 0], NOISE[:5], "gone.png"]):
            taken.append(number)
            yield each

    batches = Reader(8, batch_size=2).batches(camera())
    images, sizes = next(batches)
    assert images.shape == (2, 3, 8, 8)
    assert sizes == [(30, 20), (30, 20)]
    assert taken == [0, 1]
    assert next(batches)[1] == [(30, 5)]
    with pytest.raises(MissingInputError, match="gone"):
        next(batches)
    with pytest.raises(InputError, match=r"^photographs\[1\] is of type list"):
        list(READER.batches([NOISE, [NOISE]]))
