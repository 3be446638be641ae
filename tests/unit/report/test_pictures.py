"""Colours, overlays, panels and pages of predictions."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omiad.errors import InputError
from omiad.inspection import Inspection
from omiad.report import (
    PredictionPage,
    free_page,
    overlay,
    page_entry,
    read_gallery,
    write_gallery,
    write_panels,
)
from omiad.report.kept import Kept
from omiad.report.pictures import Album, heat, mask_picture, thumbnail
from omiad.types import Sample

SIDE, GREEN = 32, (9, 200, 30)


def panel_of(folder: Path, *images: Kept, reference: str = "") -> np.ndarray:
    """Return the panel of images that all show one grey photograph, on a scale from 1 to 9."""
    Image.new("RGB", (SIDE, SIDE), (120, 120, 120)).save(folder / "a.png")
    samples = [Sample(folder / "a.png", (), "bolt", "dent", "test")] * len(images)
    gallery, scale = folder / "results.gallery.npz", (1.0, 9.0)
    references = {"bolt": reference}
    write_gallery(gallery, images, samples, root=folder, scale=scale, references=references)
    about = {"root": folder, "scale": scale, "image_size": SIDE, "num_images": 9}
    write_panels(folder / "panels", read_gallery(gallery), **about)  # type: ignore[arg-type]
    with Image.open(folder / "panels" / "bolt.png") as picture:
        return np.asarray(picture.convert("RGB"))


def kept(index: int, level: float) -> Kept:
    anomaly_map = np.full((SIDE, SIDE), 1.0, np.float32)
    anomaly_map[8:16, 8:16] = level
    return Kept(index, level, anomaly_map, anomaly_map > 1, None)


def test_an_overlay_leaves_an_image_below_the_scale_and_refuses_another_size() -> None:
    image = np.full((8, 8, 3), 120, np.uint8)
    assert (np.asarray(overlay(image, np.full((8, 8), 0.9), (1.0, 5.0))) == 120).all()
    with pytest.raises(InputError, match=r"\(8, 8\), but got \(4, 4\)"):
        overlay(image, np.zeros((4, 4)), (0, 1))


def test_the_same_score_has_the_same_colour_in_every_row(tmp_path: Path) -> None:
    picture = panel_of(tmp_path, kept(0, 3.0), kept(1, 9.0))
    colours = {tuple(pixel) for pixel in picture.reshape(-1, 3)}
    for level in (0, 64, 255):  # scores of 1, 3 and 9
        assert tuple(heat(np.array([[level / 255]]))[0, 0]) in colours


def test_unknown_pictures_are_not_drawn_as_others(tmp_path: Path) -> None:
    unknown, empty = (kept(0, 3.0)._replace(mask=mask) for mask in (None, np.zeros((4, 4), bool)))
    without = panel_of(tmp_path, unknown)
    assert (without != panel_of(tmp_path, empty)).any()
    grey = (without == 120).all(-1).sum()
    assert (panel_of(tmp_path, unknown, reference="a.png") == 120).all(-1).sum() == grey + SIDE**2


def test_a_reconstruction_has_its_own_column_beside_the_input(tmp_path: Path) -> None:
    narrow = panel_of(tmp_path, kept(0, 3.0))
    drawn = kept(0, 3.0)._replace(reconstruction=np.full((4, 4, 3), GREEN, np.uint8))
    wide = panel_of(tmp_path, drawn)
    column = (narrow.shape[1] - 6) // 5
    assert wide.shape[1] - narrow.shape[1] == column
    left, right = (np.argwhere((wide == GREEN).all(-1))[i, 1] for i in (0, -1))
    assert (left, right - left) == (6 + 2 * column, SIDE - 1)


def test_an_album_is_never_larger_than_its_limit(tmp_path: Path) -> None:
    album = Album(tmp_path, where="folder", max_megabytes=0.001)
    assert album.take(b"x" * 500, None) == ["pictures/00000.jpeg", None]
    assert album.take(b"x" * 600) is None
    assert album.take(b"\x89PNG" * 75) == ["pictures/00001.png"]
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.*")) == 800


def test_a_mask_lets_its_photograph_through() -> None:
    mask = np.zeros((20, 20), bool)
    mask[5:10, 5:10] = True
    with Image.open(io.BytesIO(mask_picture(mask))) as picture:
        pixels = np.asarray(picture.convert("RGBA"))
    alpha, lightest = pixels[..., 3], pixels[..., :3].max(-1)
    assert alpha[0, 0] == 0 < alpha[7, 7] < 128
    assert alpha[4, 4] == alpha[2, 2] == 255
    assert lightest[4, 4] > 200  # shows on a dark photograph
    assert lightest[2, 2] < 60  # and on a bright one


def test_a_thumbnail_is_cut_as_the_protocol_cuts() -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[25:75, 50:150] = 255
    with Image.open(io.BytesIO(thumbnail(Image.fromarray(pixels), 80, 0.5))) as cut:
        assert cut.size == (80, 40)
        assert np.asarray(cut).min() > 250


def test_a_page_of_predictions_keeps_the_most_anomalous(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    page = PredictionPage(tmp_path, max_megabytes=0.02)
    for number, i in enumerate(rng.permutation(40)):
        pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        values = np.full((32, 32), i / 40, np.float32)
        found = Inspection("not calibrated", None, float(i), None, None, values, [], (64, 32))
        page.add(number, page_entry(f"<b>/{i}.png", pixels=pixels, inspection=found, scale=(0, 1)))
    text = page.write(decisions={"not calibrated": 40}, scale=(0.0, 1.0)).read_text()
    shown = text.count('"aspect":2.0')
    assert 3 < shown < 40
    assert f"The {shown} worst of 40 photographs" in text
    for i in range(40):
        assert (f'/{i}.png"' in text) == (i >= 40 - shown)


def test_a_page_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(InputError, match=r"already holds a page\. Choose another --output"):
        free_page(tmp_path, option="--output")
