"""Which images a test keeps: the worst errors and samples of each defect, whatever the batches."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from omiad.errors import InputError
from omiad.report import KeptImages, read_gallery, write_gallery
from omiad.report.kept import MAP_SIDE, MASK_SIDE, fair_share
from omiad.types import Labels, Prediction, Sample

ROOT = Path("root")


def samples(num_good: int, num_bad: int, category: str = "bolt") -> list[Sample]:
    defects = ["good"] * num_good + [("hole", "dent")[i % 2] for i in range(num_bad)]
    return [
        Sample(ROOT / category / "test" / defect / f"{i:03}.png", (), category, defect, "test")
        for i, defect in enumerate(defects)
    ]


def fed(
    listed: Sequence[Sample], scores: torch.Tensor, *, keep: int, size: int = 5, side: int = 8
) -> KeptImages:
    """Return what is kept of a test in batches of some size."""
    gallery = KeptImages(listed, num_images=keep)
    labels = torch.tensor([sample.is_anomalous for sample in listed])
    masks = torch.zeros(len(listed), side, side, dtype=torch.bool)
    masks[labels, 1, 2] = True
    for index in torch.arange(len(listed)).split(size):
        maps = scores[index][:, None, None].expand(-1, side, side).clone()
        known = torch.ones(len(index), dtype=torch.bool)
        batch = Labels(labels[index], masks[index], known, index, torch.zeros_like(index))
        gallery.add(Prediction(scores[index], maps), batch)
    return gallery


def test_the_worst_errors_and_each_defect_are_kept() -> None:
    scores = torch.rand(100, generator=torch.Generator().manual_seed(0))
    gallery = fed(samples(50, 50), scores, keep=12, size=7)
    kept = {image.index for image in gallery.kept}
    assert len(kept) <= 12
    assert set(scores[:50].topk(4).indices.tolist()) <= kept
    assert {50 + i for i in scores[50:].topk(4, largest=False).indices.tolist()} <= kept
    assert {0, 50, 51} <= kept  # the first of each defect


def test_the_kept_images_do_not_depend_on_the_batches() -> None:
    listed = samples(20, 20) + samples(9, 3, "nut")
    scores = torch.rand(52, generator=torch.Generator().manual_seed(1))
    galleries = [fed(listed, scores, keep=20, size=size) for size in (1, 5, 52)]
    kept = [[image.index for image in each.kept] for each in galleries]
    assert kept[0] == kept[1] == kept[2]


@pytest.mark.parametrize(
    ("counts", "total", "share"),
    [((10, 10), 8, 4), ((2, 10), 8, 6), ((2, 3), 8, 8), ((1, 1, 100), 9, 7), ((5, 5), 0, 0)],
)
def test_small_categories_leave_room(counts: tuple[int, ...], total: int, share: int) -> None:
    assert fair_share(counts, total) == share


def test_everything_is_kept_of_few_images_and_read_back(tmp_path: Path) -> None:
    listed = samples(3, 2)
    gallery = fed(listed, torch.tensor([0, 0.25, 0.5, 1, 2]), keep=100, size=2, side=300)
    path = tmp_path / "results.gallery.npz"
    root = tmp_path / "data"
    listed = [replace(each, image=root / each.name(ROOT)) for each in listed]
    for file in (root / "r.png", *(sample.image for sample in listed)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(file.name)
    about = {"root": root, "scale": (0.0, 1.0), "references": {"bolt": "r.png"}}
    write_gallery(path, gallery.kept, listed, **about)  # type: ignore[arg-type]
    bolt = read_gallery(path)["bolt"]
    assert bolt.name.tolist() == [sample.name(root) for sample in listed]
    assert bolt.digest[0] == hashlib.sha256(b"000.png").hexdigest()
    assert bolt.defect.tolist() == ["good", "good", "good", "hole", "dent"]
    assert bolt.level.shape == (5, MAP_SIDE, MAP_SIDE)
    assert bolt.level[:, 0, 0].tolist() == [0, 64, 128, 255, 255]
    assert bolt.mask.shape == (5, MASK_SIDE, MASK_SIDE)
    assert bolt.mask.any((1, 2)).tolist() == [False] * 3 + [True] * 2  # one pixel of 300 x 300
    assert bolt.reference.tolist() == ["r.png"]
    assert bolt.reconstruction.shape == (5, 0, 0, 3)


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(InputError, match="--num_kept must not be negative"):
        KeptImages([], num_images=-1)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "results.gallery.npz", other=np.zeros(3))
    with pytest.raises(InputError, match=r"results\.gallery\.npz"):
        read_gallery(tmp_path / "results.gallery.npz")
    assert read_gallery(tmp_path / "none.npz") == {}
