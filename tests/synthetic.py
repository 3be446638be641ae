"""Tiny data sets on disk with the quirks of the real data sets."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Pixels = np.ndarray
VISA = ("candle", "pcb1")


def pictures(
    rng: np.random.Generator, count: int, *, stripe: int, size: int, defective: bool
) -> Iterator[tuple[Pixels, Pixels]]:
    """Yield noisy stripes (S, S, 3) and masks (S, S); the defect is a dark square."""
    stripes = 128 + 60 * np.sin(np.arange(size) * stripe / 3)
    for _ in range(count):
        noise = rng.normal(0, 8, (size, size, 3))
        pixels = (stripes[None, :, None] + noise).clip(0, 255).astype(np.uint8)
        mask = np.zeros((size, size), np.uint8)
        if defective:
            top, left = rng.integers(0, size - 8, 2)
            mask[top : top + 8, left : left + 8] = 255
            pixels[mask > 0] = 0
        yield pixels, mask


def write_mvtec(
    root: Path,
    rng: np.random.Generator,
    *,
    categories: Sequence[str] = ("bottle", "cable"),
    num_train: int = 4,
    num_good: int = 3,
    num_bad: int = 3,
    size: int = 32,
    defect: str = "hole",
) -> None:
    """Write pictures in the layout of MVTec AD."""
    counts = {"train/good": num_train, "test/good": num_good, f"test/{defect}": num_bad}
    for stripe, category in enumerate(categories, 1):
        for folder, count in counts.items():
            bad = folder == f"test/{defect}"
            drawn = pictures(rng, count, stripe=stripe, size=size, defective=bad)
            for i, (pixels, mask) in enumerate(drawn):
                _save(pixels, root / category / folder / f"{i:03}.png")
                if bad:
                    _save(mask, root / category / "ground_truth" / defect / f"{i:03}_mask.png")


def write_mpdd(root: Path, rng: np.random.Generator) -> None:
    """Write MPDD: the layout of MVTec AD, with some .PNG and with empty masks of good images."""
    write_mvtec(root, rng, categories=("connector", "metal_plate", "tubes"), defect="scratches")
    for category in root.iterdir():
        _save(np.zeros((32, 32), np.uint8), category / "ground_truth/good/000_mask.png")
        (category / "train/good/000.png").rename(category / "train/good/000.PNG")


def write_visa(
    root: Path, rng: np.random.Generator, *, size: int = 32, categories: Sequence[str] = VISA
) -> None:
    """Write VisA as downloaded: .JPG, stems of 4 and 3 digits, masks of class numbers, CRLF."""
    rows = []
    kinds = (("train", "normal", 4), ("test", "normal", 3), ("test", "anomaly", 3))
    for stripe, category in enumerate(categories, 1):
        for split, label, count in kinds:
            bad = label == "anomaly"
            drawn = pictures(rng, count, stripe=stripe, size=size, defective=bad)
            for i, (pixels, mask) in enumerate(drawn):
                name = f"{i:03}" if bad else f"{i + 4 * (split == 'test'):04}"
                image = f"{category}/Data/Images/{label.capitalize()}/{name}.JPG"
                mask_path = f"{category}/Data/Masks/Anomaly/{name}.png" if bad else ""
                _save(pixels, root / image)
                if bad:
                    _save(mask // 255 * (1 + i), root / mask_path)
                rows.append([category, split, label, image, mask_path])
    rng.shuffle(rows)
    (root / "split_csv").mkdir()
    with (root / "split_csv" / "1cls.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\r\n")
        table.writerows([["object", "split", "label", "image", "mask"], *rows])


def write_visa_prepared(root: Path, rng: np.random.Generator, *, folder: str = "1cls") -> None:
    """Write prepared VisA: the layout of MVTec AD with RGB masks named like their images."""
    write_mvtec(root / folder, rng, categories=VISA, defect="bad")
    for mask in list((root / folder).glob("*/ground_truth/bad/*")):
        _save(np.asarray(Image.open(mask).convert("RGB")), mask)
        mask.rename(mask.with_name(mask.name.replace("_mask", "")))


def write_realiad(
    root: Path,
    rng: np.random.Generator,
    *,
    jsons: str = "realiad_jsons/realiad_jsons",
    images: str = "realiad_256",
    size: int = 32,
    num_train: int = 2,
) -> None:
    """Write Real-IAD: parts with five views; one view of a defective part shows no defect."""
    parts = (*num_train * [("train", "OK")], ("test", "OK"), ("test", "NG/AK"))
    for stripe, category in enumerate(("audiojack", "bottle_cap"), 1):
        split: dict[str, list[dict[str, str | None]]] = {"train": [], "test": []}
        for part, (listed, kind) in enumerate(parts):
            for view in range(1, 6):
                bad = kind != "OK" and view != 3
                ((pixels, mask),) = pictures(rng, 1, stripe=stripe, size=size, defective=bad)
                stem = f"{category}_{part:04}_{kind.replace('/', '_')}_C{view}_20231013{view:06}"
                row = {"category": category, "anomaly_class": "AK" if bad else "OK"}
                row |= {"image_path": f"{kind}/S{part:04}/{stem}.jpg", "mask_path": None}
                _save(pixels, root / images / category / row["image_path"])
                if bad:
                    row["mask_path"] = f"{kind}/S{part:04}/{stem}.png"
                    _save(mask, root / images / category / row["mask_path"])
                split[listed].append(row)
        path = root / jsons / f"{category}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        meta = {"prefix": f"{category}/", "normal_class": "OK"}
        path.write_text(json.dumps({"meta": meta, **split}))


def write_folder(root: Path, rng: np.random.Generator) -> None:
    """Write sorted photographs: a flat category, and one with defects of which some have masks."""
    for i, (pixels, _) in enumerate(pictures(rng, 4, stripe=1, size=32, defective=False)):
        _save(pixels, root / "bolt" / f"{i}.png")
    for folder, count in (("Good", 10), ("scratch", 3), ("dent", 2)):
        bad = folder != "Good"
        drawn = pictures(rng, count, stripe=2, size=32, defective=bad)
        for i, (pixels, mask) in enumerate(drawn):
            _save(pixels, root / "nut" / folder / f"{i}.jpg")
            if folder == "scratch":
                _save(mask, root / "nut" / "masks" / folder / f"{i}.png")


def _save(pixels: Pixels, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
