"""An image file is data from anywhere: none runs a program, hangs, or ends in a traceback."""

import os
import re
import signal
import socket
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzz.kinds.images import mutant
from PIL import EpsImagePlugin, Image, ImageFile
from synthetic import write_mvtec
from tiny import data_of

import omiad
from omiad.data.check.facts import gather
from omiad.data.layouts import index_dataset
from omiad.data.masks import load_mask, open_mask
from omiad.errors import InputError, MissingInputError
from omiad.evaluation.maps import read_map
from omiad.features.identity import content_of, stamp_of
from omiad.photographs import load_image, read_image
from omiad.photographs.opening import opened

READERS = (load_image, open_mask, read_map, stamp_of, content_of)


@pytest.fixture(autouse=True)
def at_most_a_minute() -> Iterator[None]:
    """Fail instead of waiting for ever."""
    signal.alarm(60)
    yield
    signal.alarm(0)


def test_the_package_opens_images_in_one_place():
    package = Path(omiad.__file__).parent
    examples = re.compile(r">>> .*")
    sources = {path: examples.sub("", path.read_text()) for path in package.rglob("*.py")}
    doors = [path.name for path, text in sources.items() if re.search(r"\bImage\.open\(", text)]
    assert doors == ["opening.py"]
    others = r"LOAD_TRUNCATED_IMAGES|MAX_IMAGE_PIXELS|imread|decode_(image|jpeg|png)|PIL\.open"
    assert not [path for path, text in sources.items() if re.search(others, text)]
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("read", [load_image, open_mask, read_map])
def test_postscript_with_the_name_of_a_picture_starts_no_program(tmp_path, monkeypatch, read):
    trace, program = tmp_path / "trace", tmp_path / "bin/gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho started >> {trace}\necho 10.0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # Pillow looks for it once
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png", "EPS")
    with pytest.raises(InputError, match=r"x\.png"):
        read(tmp_path / "x.png")
    assert not trace.exists()


@pytest.mark.parametrize("kind", ["GIF", "PPM", "ICO", "TGA", "PCX", "JPEG2000", "DDS", "SGI"])
def test_a_format_that_needs_not_be_read_is_refused_whatever_its_name(tmp_path, kind):
    Image.new("RGB", (32, 32)).save(tmp_path / "x.png", kind)
    with pytest.raises(InputError, match=r"x\.png.*none of BMP, JPEG, PNG, TIFF, WEBP"):
        read_image(tmp_path / "x.png", 8)


@pytest.mark.parametrize("read", READERS)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(2**43)  # takes no space on the disk
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket.png"))
    listener.close()
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(InputError, match=path.name):
            read(path)
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "gone")
    with pytest.raises(MissingInputError, match=r"nowhere\.png"):
        read(tmp_path / "nowhere.png")


ERRORS = (
    NotImplementedError("no"),
    TypeError(),
    struct.error("short"),
    AttributeError("x"),
    RecursionError(),
    MemoryError(),
    zlib.error("bad"),
    SystemError("tile"),
    OSError(5, "Input/output error"),
    SyntaxError("not a PNG file\x1b[2J"),
    Image.DecompressionBombError("large"),
)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_a_decoder_raises_names_the_file_in_one_printable_line(
    tmp_path, monkeypatch, error
):
    Image.new("L", (8, 8)).save(tmp_path / "x.png")

    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    for read in (load_image, open_mask, read_map):
        with pytest.raises(
            InputError, match=r"x\.png' cannot be read as an image \(.+\)"
        ) as raised:
            read(tmp_path / "x.png")
        assert str(raised.value).isprintable()


def test_libtiff_says_nothing_of_its_own_about_a_damaged_file(tmp_path, capfd):
    path = tmp_path / "x.tif"
    Image.new("RGB", (8, 8), "red").save(path, compression="tiff_adobe_deflate")
    content = bytearray(path.read_bytes())
    content[10] ^= 255  # in the compressed pixels
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.tif' cannot be read as an image"):
        load_image(path)
    assert capfd.readouterr().err == ""
    os.write(2, b"said")
    assert capfd.readouterr().err == "said"


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", [b"\x00\x00", b"\xff\xff", b"\x00\x09", b"\x05\x05"])
def test_a_photograph_with_a_bad_orientation_is_read_as_it_lies(tmp_path, kind, orientation):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    plain, strange = tmp_path / f"plain.{kind}", tmp_path / f"strange.{kind}"
    Image.fromarray(pixels).save(plain)
    exif = Image.Exif()
    exif[0x0112] = int.from_bytes(orientation, "big")
    Image.fromarray(pixels).save(strange, exif=exif)
    assert np.array_equal(load_image(strange), load_image(plain))


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0II*\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"xx"])
def test_damaged_exif_leaves_the_photograph_readable(tmp_path, exif):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    assert load_image(tmp_path / "a.jpg").shape == (8, 16, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "tif", "jpg", "webp"])
def test_a_mask_fits_its_turned_photograph_in_every_format(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (16, 8)).save(tmp_path / f"a.{kind}", exif=exif)
    shape = load_image(tmp_path / f"a.{kind}").shape[:2]
    Image.new("L", shape[::-1], 255).save(tmp_path / "m.png")
    assert load_mask([tmp_path / "m.png"], image=tmp_path / f"a.{kind}").shape == shape


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("cache", [True, False])
def test_all_unreadable_photographs_are_named_before_training(tmp_path, cache, num_workers):
    root = tmp_path / "data"
    write_mvtec(root, np.random.default_rng(0), num_train=16)
    broken = sorted(root.glob("*/train/good/*5.png")) + sorted(root.glob("*/train/good/*0.png"))
    for path in broken[1:]:
        path.write_bytes(path.read_bytes()[:80])
    broken[0].unlink()
    os.mkfifo(broken[0])
    data = data_of(root, tmp_path, cache=cache, num_workers=num_workers)
    with pytest.raises(InputError, match=rf"{len(broken)} files") as raised:
        data.setup("fit")
    assert all(f"{path}'" in str(raised.value) for path in broken)
    for path in root.glob("*/train/good/*.png"):
        path.unlink()
        path.write_bytes(b"x")
    with pytest.raises(InputError, match=r"32 files") as raised:
        data_of(root, tmp_path, cache=cache).setup("fit")
    assert "and 22 more" in str(raised.value)


def test_all_unreadable_photographs_and_masks_of_a_test_are_named(tmp_path):
    root = tmp_path / "data"
    write_mvtec(root, np.random.default_rng(0))
    broken = [
        root / "bottle/test/good/001.png",
        root / "cable/test/hole/002.png",
        root / "cable/ground_truth/hole/000_mask.png",
    ]
    for path in broken:
        path.write_bytes(b"x")
    with pytest.raises(InputError, match="3 files") as raised:
        list(data_of(root, tmp_path).test_dataloader())
    assert all(f"{path}'" in str(raised.value) for path in broken)


def check(path: Path) -> bool:
    """Read a file in all ways; return whether it is an image."""
    found = []
    for read in (load_image, open_mask, read_map):
        with suppress(InputError):  # any other error fails the test
            found.append(read(path))
    with suppress(InputError):
        pixels = read_image(path, 16)
        assert pixels.shape == (3, 16, 16)
        assert pixels.dtype == torch.uint8
    return bool(found)


@pytest.mark.parametrize(
    ("seed", "count"), [(0, 200), pytest.param(1, 1000, marks=pytest.mark.slow)]
)
def test_a_damaged_image_is_read_or_refused_with_its_path(tmp_path, seed, count):
    path = tmp_path / "x.png"
    readable, rng = 0, np.random.default_rng(seed)
    for _ in range(count):
        path.write_bytes(mutant(rng))
        readable += check(path)
    assert 0.1 * count < readable < 0.9 * count  # the damage goes to both sides of the line


def test_data_check_goes_on_after_each_kind_of_damage(tmp_path):
    root = tmp_path / "data"
    write_mvtec(root, np.random.default_rng(0), num_train=8)
    (root / "bottle/train/good/loop").symlink_to(root / "bottle")
    paths = sorted(root.glob("*/*/*/*.png"))[::2]
    rng = np.random.default_rng(2)
    for path in paths:
        path.write_bytes(mutant(rng))
    facts = gather(index_dataset(root).samples, num_workers=0, progress=False)
    named = {broken.path for fact in facts for broken in fact.broken}
    assert named
    assert named <= {*paths, *(fact.sample.masks[0] for fact in facts if fact.sample.masks)}


def test_the_file_of_an_image_is_closed_after_an_error(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    with pytest.raises(InputError, match="out of the block"), opened(tmp_path / "x.png") as image:
        raise KeyError("out of the block")
    assert image.fp is None or image.fp.closed
