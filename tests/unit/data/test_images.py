import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from png import png_16_bit
from torch.utils.data import DataLoader

from omiad.data.images import ImageDataset, read_image
from omiad.data.layouts.mvtec import index
from omiad.data.masks import MaskSizeError, read_mask
from omiad.errors import InputError, MissingInputError
from omiad.features.reading import FileLoader
from omiad.types import ImageBatch

GRADIENT = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


@pytest.mark.parametrize("shape", [(8, 8), (20, 30)])
def test_an_image_is_resized_to_a_square_by_bilinear_interpolation(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", 8)
    resized = Image.fromarray(pixels).resize((8, 8), Image.Resampling.BILINEAR)
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(resized))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    name = "a.tif" if mode == "CMYK" else "a.png"
    pixels = np.where(GRADIENT > 100, 255, 0).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(tmp_path / name)
    assert np.array_equal(read_image(tmp_path / name, 8).numpy(), np.stack([pixels] * 3))


def test_transparency_is_dropped_and_the_stored_colour_is_kept(tmp_path):
    Image.new("RGBA", (8, 8), (200, 10, 30, 0)).save(tmp_path / "a.png")
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 200, 10, 30])
    palette.save(tmp_path / "b.png", transparency=bytes([255, 0]))
    for name in ("a.png", "b.png"):
        assert read_image(tmp_path / name, 8)[:, 0, 0].tolist() == [200, 10, 30]


def test_16_bit_grayscale_is_scaled_to_8_bit(tmp_path):
    wide = GRADIENT.astype(np.uint16) * 257
    Image.fromarray(wide).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", 8).numpy(), np.stack([GRADIENT] * 3))


def test_exif_orientation_is_applied_to_the_image_and_to_its_mask_check(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to see it upright
    pixels = np.repeat(np.uint8([[255, 0]]), 8, axis=1).repeat(8, axis=0)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(pixels.T.copy()).save(tmp_path / "m.png")
    mask = read_mask([tmp_path / "m.png"], 8, image=tmp_path / "a.png")
    assert mask[:4].all()
    assert not mask[4:].any()
    upright = read_image(tmp_path / "a.png", 8)
    assert upright[0, :3].min() == 255
    assert upright[0, 5:].max() == 0


def test_broken_truncated_and_floating_point_images_are_rejected(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise[..., 0].astype(np.float32)).save(tmp_path / "f.tif")
    (tmp_path / "text.png").write_text("not an image")
    for name in ("a.png", "a.jpg"):
        Image.fromarray(noise).save(tmp_path / name)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-500])
    for name in ("f.tif", "text.png", "a.png", "a.jpg"):
        with pytest.raises(InputError, match=rf"{name}'"):
            read_image(tmp_path / name, 8)
    with pytest.raises(MissingInputError, match="gone"):
        read_image(tmp_path / "gone.png", 8)


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [8, 16])
def test_every_pixel_of_a_mask_that_is_not_black_is_defective(tmp_path, mode, size):
    defective = GRADIENT > 100
    numbers = defective.astype(np.uint16 if mode == "I;16" else np.uint8)  # 1 counts like 255
    mask = Image.fromarray(defective if mode == "1" else numbers)
    if mode == "P":
        mask.putpalette([0, 0, 0, 1, 0, 0])
    mask.convert(mode).resize((size, size), Image.Resampling.NEAREST).save(tmp_path / "m.png")
    Image.new("RGB", (size, size)).save(tmp_path / "a.png")
    read = read_mask([tmp_path / "m.png"], 8, image=tmp_path / "a.png")
    assert read.dtype == torch.bool
    assert np.array_equal(read.numpy(), defective)


def test_a_mask_of_another_size_than_its_image_is_rejected(tmp_path):
    Image.new("L", (8, 9)).save(tmp_path / "m.png")
    Image.new("RGB", (16, 12)).save(tmp_path / "a.png")
    with pytest.raises(MaskSizeError, match=r"m.png' is 8 x 9 .*a.png' is 16 x 12"):
        read_mask([tmp_path / "m.png"], 8, image=tmp_path / "a.png")


def test_items_collate_to_an_image_batch_with_labels_from_the_index(mvtec_root):
    samples = [s for s in index(mvtec_root) if s.split == "test" and s.category == "bottle"]
    samples.append(replace(samples[-1], masks=()))  # its pixels are unknown
    (batch,) = DataLoader(ImageDataset(samples, 16), batch_size=7)
    assert isinstance(batch, ImageBatch)
    assert batch.images.shape == (7, 3, 16, 16)
    assert batch.labels.is_anomalous.tolist() == [False] * 3 + [True] * 4
    assert batch.labels.masks.dtype == torch.uint8
    assert batch.labels.masks.flatten(1).any(1).tolist() == [False] * 3 + [True] * 3 + [False]
    assert batch.labels.has_mask.tolist() == [True] * 6 + [False]
    assert batch.labels.index.tolist() == list(range(7))


def test_an_error_in_a_worker_stays_one_sentence(mvtec_root, tmp_path):
    shutil.copytree(mvtec_root, tmp_path / "data")
    (tmp_path / "data/bottle/train/good/000.png").write_text("not an image")
    dataset = ImageDataset(index(tmp_path / "data")[:2], 16)
    with pytest.raises(InputError, match=r"^'.*000.png' cannot be read[^\n]*$"):
        list(FileLoader(dataset, batch_size=2, num_workers=1))


def test_16_bit_colour_keeps_its_high_byte(tmp_path):
    high = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png_16_bit(high * 256 + 7))
    assert np.array_equal(read_image(tmp_path / "a.png", 8).permute(1, 2, 0).numpy(), high)
    with pytest.raises(InputError, match=r"a\.png' has 16-bit colour.*white_level 4095"):
        read_image(tmp_path / "a.png", 8, white_level=4095)


@pytest.mark.parametrize(("bits", "white_level"), [(10, 1023), (12, 4095), (16, 65_535)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_the_white_level_of_a_camera_becomes_white(tmp_path, bits, white_level, suffix):
    wide = (GRADIENT / 255 * white_level).round().astype(np.uint16)
    wide[0, 0] = white_level
    Image.fromarray(wide).save(tmp_path / f"a.{suffix}")
    read = read_image(tmp_path / f"a.{suffix}", 8, white_level=white_level)[0].numpy()
    assert read[0, 0] == 255
    assert np.array_equal(read.flat[1:], GRADIENT.flat[1:])
    wide[0, 0] = 65_535  # above the white level
    Image.fromarray(wide).save(tmp_path / f"a.{suffix}")
    assert read_image(tmp_path / f"a.{suffix}", 8, white_level=white_level)[0, 0, 0] == 255


def test_the_first_of_several_pages_is_read(tmp_path):
    pages = [Image.fromarray(GRADIENT), Image.new("L", (8, 8))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert np.array_equal(read_image(tmp_path / "a.tif", 8)[0].numpy(), GRADIENT)


def test_an_image_with_too_many_pixels_is_rejected(tmp_path, monkeypatch):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match=r"a.png' .*4096 pixels"):
        read_image(tmp_path / "a.png", 8)
