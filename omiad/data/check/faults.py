"""The rules by which a data set is checked; each fault says how to fix it."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from omiad.data.check.duplicates import identical, near
from omiad.data.check.facts import Facts
from omiad.data.layouts import FEW_PHOTOGRAPHS, Index, few_photographs
from omiad.data.layouts.folder import MASK_NAMES
from omiad.data.layouts.listing import images
from omiad.data.layouts.published import PUBLISHED, Counts
from omiad.types import NORMAL, Sample

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")

IMBALANCE = 10
"""Ratio of the largest to the smallest number of training images from which a warning is given."""

_MASK_FIXES = {
    "mask size": "Export the mask again, at the size of its image.",
    "unreadable mask": "Export the mask again from the annotation.",
    "empty mask": "Mark the defect, or move the image to test/good if it has none.",
}
_CONVERSIONS = {
    "grayscale": "repeated to three channels",
    "black and white": "repeated to three channels",
    "16-bit": "scaled from 0..65535 to 0..255",
    "alpha": "read without transparency",
    "palette": "read as the colours of the palette",
    "CMYK": "converted to RGB",
    "rotated by EXIF": "turned upright",
}


class Fault(NamedTuple):
    """A fault of a data set.

    Attributes:
        level: "error" if results would be wrong or a run would stop, "warning" if results may
            mislead, "note" if nothing needs to be done.
        kind: Short name.
        where: Path below the root, or a category.
        what: A sentence that says what is wrong.
        fix: A sentence that says what to do; empty for notes.
    """

    level: Level
    kind: str
    where: str
    what: str
    fix: str = ""


def find(root: Path, index: Index, facts: Sequence[Facts]) -> list[Fault]:
    """Apply all rules and return the faults, errors first, sorted by kind."""
    samples = index.samples
    found = [
        *_unreadable(root, samples, facts),
        *_without_mask(root, samples),
        *_stray_masks(root, index),
        *_counts(index),
        *_twice(root, samples, facts),
        *_training(samples),
        *_conversions(root, samples, facts),
        *_unmeasured(samples),
    ]
    return sorted(found, key=lambda fault: (LEVELS.index(fault.level), fault.kind))


def count(samples: Sequence[Sample]) -> dict[str, Counts]:
    """Count the images of each category."""
    kinds = Counter((s.category, s.split, s.is_anomalous) for s in samples)
    return {
        name: Counts(
            kinds[name, "train", False], kinds[name, "test", False], kinds[name, "test", True]
        )
        for name in sorted({s.category for s in samples})
    }


def _unreadable(root: Path, samples: Sequence[Sample], facts: Sequence[Facts]) -> Iterator[Fault]:
    for fact in facts:
        image, mask = samples[fact.row].image, samples[fact.row].mask
        where = _below(root, image)
        if fact.error and not image.exists():
            what = "The data set lists this image, but the file is missing."
            fix = f"Unpack '{where}' again, or remove its line from the split."
            yield Fault("error", "missing image", where, what, fix)
        elif fact.error:
            fix = "Copy the image again from its source, or remove the image and its mask."
            yield Fault("error", "unreadable image", where, fact.error, fix)
        elif fact.mask_fault and mask:
            kind, fix = fact.mask_fault, _MASK_FIXES[fact.mask_fault]
            yield Fault("error", kind, _below(root, mask), fact.mask_error, fix)


def _without_mask(root: Path, samples: Sequence[Sample]) -> Iterator[Fault]:
    groups: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        if sample.is_anomalous:
            groups[sample.category][sample.defect].append(sample)
    for category, defects in groups.items():
        if not any(s.mask for rows in defects.values() for s in rows):
            what = "No defective image has a mask, so there are image metrics but no pixel metrics."
            yield Fault("note", "no masks", category, what)
            continue
        for defect, rows in defects.items():
            bare = [s for s in rows if s.mask is None]
            if len(bare) == len(rows):
                what = f"None of the {len(rows)} images has a mask, but other defects have masks."
                fix = f"Add masks, or accept that the pixel metrics leave '{defect}' out."
                yield Fault("warning", "no masks", f"{category}/{defect}", what, fix)
                continue
            for sample in bare:
                what = "This image has no mask, but others with the same defect have one."
                fix = f"Add a mask named '{sample.image.stem}_mask.png', or correct its name."
                yield Fault("error", "no mask", _below(root, sample.image), what, fix)


def _stray_masks(root: Path, index: Index) -> Iterator[Fault]:
    if index.layout in ("realiad", "realiad_sv"):  # the split names the masks, among the images
        return
    used = {sample.mask for sample in index.samples}
    tested = {(s.defect, s.image.stem) for s in index.samples if s.split == "test"}
    bare: dict[tuple[str, str], list[str]] = defaultdict(list)
    for sample in index.samples:
        if sample.is_anomalous and sample.mask is None:
            bare[sample.category, sample.defect].append(sample.image.stem)
    for folder, _, _ in os.walk(root):
        parts = Path(folder).relative_to(root).parts
        if not set(MASK_NAMES) & set(parts) or parts[-1] == NORMAL:
            continue
        for path in images(Path(folder)):
            if path not in used and (parts[-1], path.stem.removesuffix("_mask")) not in tested:
                candidates = bare[parts[0], parts[-1]]
                name = f"'{candidates[0]}_mask{path.suffix}'" if len(candidates) == 1 else None
                fix = f"Rename it to {name or 'the name of its image'}, or remove it."
                what = "No test image belongs to this mask."
                yield Fault("error", "stray mask", _below(root, path), what, fix)


def _counts(index: Index) -> Iterator[Fault]:
    published = PUBLISHED.get(index.dataset)
    if published is None:
        return
    title, found = published.title, count(index.samples)
    for category, expected in published.categories.items():
        if category not in found:
            what = f"{title} has this category, but the data set does not."
            fix = "Unpack it too, or do not compare the means with published ones."
            yield Fault("warning", "category missing", category, what, fix)
        elif expected is not None:
            yield from _differing(category, found[category], expected, title)
    for category in set(found) - set(published.categories):
        what, fix = f"{title} has no such category.", "Move the category to another root."
        yield Fault("warning", "category unknown", category, what, fix)
    if set(found) == set(published.categories):
        totals = Counts(*(sum(column) for column in zip(*found.values(), strict=True)))
        yield from _differing("all categories", totals, published.total, title)


def _differing(where: str, found: Counts, expected: Counts, title: str) -> Iterator[Fault]:
    names = ("training", "normal test", "defective test")
    for name, here, there in zip(names, found, expected, strict=True):
        if there >= 0 and here != there:
            what = f"There are {here} {name} images, but {title} has {there}."
            yield Fault("error", "count", where, what, f"Unpack {title} again to an empty folder.")


def _twice(root: Path, samples: Sequence[Sample], facts: Sequence[Facts]) -> Iterator[Fault]:
    same = set(identical(samples, facts))
    for a, b in sorted(same):
        first, second = samples[a], samples[b]
        where, other = _below(root, second.image), f"'{_below(root, first.image)}'"
        if first.split != second.split:
            what = f"The file is identical to the training image {other}."
            fix = "Remove one; testing on a training image measures memory, not detection."
            yield Fault("error", "train in test", where, what, fix)
        elif first.is_anomalous != second.is_anomalous:
            what = f"The file is identical to {other}, which has another label."
            yield Fault("error", "two labels", where, what, "Remove the one with the wrong label.")
        else:
            what = f"The file is identical to {other}."
            yield Fault("warning", "duplicate", where, what, "Remove one of them.")
    for a, b in near(samples, facts, same):
        what = f"It is almost identical to the training image '{_below(root, samples[a].image)}'."
        fix = "Look at both, and remove one if they are the same photograph."
        yield Fault("warning", "near duplicate", _below(root, samples[b].image), what, fix)


def _training(samples: Sequence[Sample]) -> Iterator[Fault]:
    for category, number in few_photographs(samples).items():
        what = (
            f"Training photographs: {number}. With fewer than {FEW_PHOTOGRAPHS}, the scale of the "
            f"anomaly maps and the memory rest on too few normal images."
        )
        fix = f"Take at least {FEW_PHOTOGRAPHS} photographs of normal products."
        yield Fault("warning", "few photographs", category, what, fix)
    counts = {name: c.train for name, c in count(samples).items()}
    few, many = min(counts, key=lambda n: counts[n]), max(counts, key=lambda n: counts[n])
    if counts[many] >= IMBALANCE * counts[few]:
        what = f"{counts[few]} training images, but '{many}' has {counts[many]}."
        fix = "Train with --data.sampling balanced, or take more photographs."
        yield Fault("warning", "imbalance", few, what, fix)


def _conversions(root: Path, samples: Sequence[Sample], facts: Sequence[Facts]) -> Iterator[Fault]:
    special: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    sizes: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for fact in facts:
        category = samples[fact.row].category
        for name in fact.special:
            special[category, name].append(samples[fact.row])
        if fact.size is not None:
            sizes[category].add(fact.size)
    totals = Counter(sample.category for sample in samples)
    for (category, name), found in sorted(special.items()):
        some = f" (the first is '{_below(root, found[0].image)}')"
        which = f"{len(found)} of {totals[category]} images{some * (len(found) < totals[category])}"
        yield Fault("note", name, category, f"{which}: {_CONVERSIONS[name]}.")
    for category, several in sorted(sizes.items()):
        if len(several) > 1:
            (w, h), (wide, high) = min(several), max(several)
            what = f"{len(several)} sizes, {w} x {h} to {wide} x {high}; all are resized to one."
            yield Fault("note", "unequal sizes", category, what)


def _unmeasured(samples: Sequence[Sample]) -> Iterator[Fault]:
    for category, counts in count(samples).items():
        for name, number in (("normal", counts.good), ("defective", counts.defective)):
            if number == 0:
                what = f"There are no {name} test images, so the metrics are undefined."
                yield Fault("note", "cannot be measured", category, what)


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
