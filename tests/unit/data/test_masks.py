"""5,050 defective pixels stay 5,050, whatever program wrote the mask."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from omiad.data.masks import MaskSizeError, load_mask, open_mask, read_mask
from omiad.errors import InputError

RECTANGLE = np.zeros((128, 128), np.uint8)
RECTANGLE[10:60, 5:106] = 255
CLASSES = np.zeros((128, 128), np.uint8)
CLASSES[10:40, 5:50], CLASSES[50:90, 10:90], CLASSES[100:110, 20:60], CLASSES[95] = 1, 2, 3, 1


def drawn(mask: np.ndarray | Image.Image, path: Path, **options: object) -> np.ndarray:
    image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
    image.save(path, **options)
    return open_mask(path).defective


@pytest.mark.parametrize("quality", [30, 50, 75, 95])
def test_jpeg_moves_no_edge(tmp_path, quality):
    assert np.array_equal(drawn(RECTANGLE, tmp_path / "m.jpg", quality=quality), RECTANGLE > 0)
    with Image.open(tmp_path / "m.jpg") as lossy:
        assert np.array_equal(drawn(lossy, tmp_path / "again.png"), RECTANGLE > 0)


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1, 1.5, 3])
@pytest.mark.parametrize("kind", ["L", "RGB", "I;16", "F"])
def test_a_blurred_edge_is_cut_at_half(tmp_path, sigma, kind):
    soft = Image.fromarray(RECTANGLE).filter(ImageFilter.GaussianBlur(sigma))
    if kind == "RGB":
        soft = soft.convert("RGB")
    elif kind == "I;16":
        soft = Image.fromarray(np.asarray(soft).astype(np.uint16) * 257)
    elif kind == "F":
        soft = Image.fromarray(np.asarray(soft).astype(np.float32) / 255)
    suffix = "tif" if kind == "F" else "png"
    assert abs(int(drawn(soft, tmp_path / f"m.{suffix}").sum()) - 5050) <= 4 * sigma**2


def test_a_small_faint_defect_beside_a_large_one_is_kept(tmp_path):
    mask = np.zeros((128, 128), np.uint8)
    mask[20:80, 20:80] = mask[100:103, 100:103] = 255
    soft = Image.fromarray(mask).filter(ImageFilter.GaussianBlur(1.5))
    assert drawn(soft, tmp_path / "m.png").sum() == pytest.approx(3609, abs=8)


@pytest.mark.parametrize("scale", [1, 10, 85])
@pytest.mark.parametrize("kind", ["L", "P", "RGB"])
def test_all_classes_are_defective(tmp_path, scale, kind):
    mask = Image.fromarray(CLASSES * scale)
    if kind == "P":
        mask = Image.fromarray(CLASSES, "P")
        mask.putpalette([0, 0, 0, scale, 0, 0, 0, 2 * scale, 0, 0, 0, 3 * scale])
    elif kind == "RGB":
        mask = mask.convert("RGB")
    assert np.array_equal(drawn(mask, tmp_path / "m.png"), CLASSES > 0)


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "L"])
def test_white_below_alpha_0_is_background(tmp_path, kind):
    if kind == "P":
        mask = Image.fromarray((RECTANGLE > 0).astype(np.uint8), "P")
        mask.putpalette([255, 255, 255, 255, 255, 255])
        options = {"transparency": bytes([0, 255])}
    elif kind == "L":
        mask, options = Image.fromarray(np.where(RECTANGLE, 255, 254).astype(np.uint8)), {}
        options = {"transparency": 254}
    else:
        mask, options = Image.new(kind, (128, 128), "white"), {}
        mask.putalpha(Image.fromarray(RECTANGLE))
    assert np.array_equal(drawn(mask, tmp_path / "m.png", **options), RECTANGLE > 0)


def test_masks_of_one_image_are_united(tmp_path):
    first, second = RECTANGLE.copy(), RECTANGLE.copy()
    first[:, 50:], second[:, :40] = 0, 0
    paths = [tmp_path / "000_mask.png", tmp_path / "000_mask_1.png"]
    for path, mask in zip(paths, (first, second), strict=True):
        Image.fromarray(mask).save(path)
    Image.new("RGB", (128, 128)).save(tmp_path / "000.png")
    assert np.array_equal(load_mask(paths, image=tmp_path / "000.png"), RECTANGLE > 0)
    assert np.array_equal(read_mask(paths, 128, image=tmp_path / "000.png").numpy(), RECTANGLE > 0)
    Image.fromarray(second[:100]).save(paths[1])
    with pytest.raises(MaskSizeError, match=r"000_mask_1\.png' is 128 x 100"):
        load_mask(paths, image=tmp_path / "000.png")


def test_a_mask_of_numbers_that_are_not_finite_is_refused(tmp_path):
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "m.tif")
    with pytest.raises(InputError, match=r"m\.tif' has pixels that are not finite"):
        open_mask(tmp_path / "m.tif")
