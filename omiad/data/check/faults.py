"""The rules by which a data set is checked; each fault says how to fix it."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from omiad.data.check.duplicates import identical, near
from omiad.data.check.facts import Facts
from omiad.data.layouts import FEW_PHOTOGRAPHS, Index, few_photographs
from omiad.data.layouts.folder import MASK_NAMES
from omiad.data.layouts.listing import images
from omiad.data.layouts.published import PUBLISHED, Counts, count
from omiad.types import NORMAL, Sample

Level = Literal["error", "warning", "note"]

IMBALANCE = 10
"""Ratio of the largest to the smallest number of training images from which a warning is given."""

_FIXES = {
    "missing image": "Unpack the image again, or remove its line from the split.",
    "unreadable image": "Copy the image again from its source, or remove the image and its mask.",
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
    found = [
        *_broken(root, facts),
        *_without_mask(root, index.samples),
        *_stray_masks(root, index),
        *_counts(index),
        *_twice(root, facts),
        *_training(index.samples),
        *_conversions(root, facts),
        *_unmeasured(index.samples),
    ]
    return sorted(found, key=lambda fault: (get_args(Level).index(fault.level), fault.kind))


def _broken(root: Path, facts: Sequence[Facts]) -> Iterator[Fault]:
    for fact in facts:
        if fact.fault:
            mask = fact.sample.mask if "mask" in fact.fault else None
            where = (mask or fact.sample.image).relative_to(root).as_posix()
            yield Fault("error", fact.fault, where, fact.message, _FIXES[fact.fault])


def _without_mask(root: Path, samples: Sequence[Sample]) -> Iterator[Fault]:
    groups: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        if sample.is_anomalous:
            groups[sample.category][sample.defect].append(sample)
    for category, defects in groups.items():
        bare = {name: [s for s in rows if s.mask is None] for name, rows in defects.items()}
        if bare == defects:
            what = "No defective image has a mask, so there are image metrics but no pixel metrics."
            yield Fault("note", "no masks", category, what)
            continue
        for defect, rows in bare.items():
            if rows == defects[defect]:
                what = f"None of the {len(rows)} images has a mask, but other defects have masks."
                fix = f"Add masks, or accept that the pixel metrics leave '{defect}' out."
                yield Fault("warning", "no masks", f"{category}/{defect}", what, fix)
                continue
            for sample in rows:
                what = "This image has no mask, but others with the same defect have one."
                fix = f"Add a mask named '{sample.image.stem}_mask.png', or correct its name."
                yield Fault("error", "no mask", sample.name(root), what, fix)


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
                stems, name = bare[parts[0], parts[-1]], "the name of its image"
                if len(stems) == 1:
                    name = f"'{stems[0]}_mask{path.suffix}'"
                where, fix = path.relative_to(root), f"Rename it to {name}, or remove it."
                what = "No test image belongs to this mask."
                yield Fault("error", "stray mask", where.as_posix(), what, fix)


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


def _twice(root: Path, facts: Sequence[Facts]) -> Iterator[Fault]:
    same = list(identical(facts))
    for first, second in same:
        where, what = second.name(root), f"The file is identical to '{first.name(root)}'."
        if first.split != second.split:
            what = f"The file is identical to the training image '{first.name(root)}'."
            fix = "Remove one; testing on a training image measures memory, not detection."
            yield Fault("error", "train in test", where, what, fix)
        elif first.is_anomalous != second.is_anomalous:
            what = f"The file is identical to '{first.name(root)}', which has another label."
            yield Fault("error", "two labels", where, what, "Remove the one with the wrong label.")
        else:
            yield Fault("warning", "duplicate", where, what, "Remove one of them.")
    for first, second in near(facts, same):
        what = f"It is almost identical to the training image '{first.name(root)}'."
        fix = "Look at both, and remove one if they are the same photograph."
        yield Fault("warning", "near duplicate", second.name(root), what, fix)


def _training(samples: Sequence[Sample]) -> Iterator[Fault]:
    for category, number in few_photographs(samples).items():
        what = (
            f"Training photographs: {number}. With fewer than {FEW_PHOTOGRAPHS}, the scale of the "
            f"anomaly maps and the memory rest on too few normal images."
        )
        fix = f"Take at least {FEW_PHOTOGRAPHS} photographs of normal products."
        yield Fault("warning", "few photographs", category, what, fix)
    train = {name: counts.train for name, counts in count(samples).items()}
    few, many = min(train, key=train.__getitem__), max(train, key=train.__getitem__)
    if train[many] >= IMBALANCE * train[few]:
        what = f"{train[few]} training images, but '{many}' has {train[many]}."
        fix = "Train with --data.sampling balanced, or take more photographs."
        yield Fault("warning", "imbalance", few, what, fix)


def _conversions(root: Path, facts: Sequence[Facts]) -> Iterator[Fault]:
    special: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    sizes: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for fact in facts:
        for name in fact.special:
            special[fact.sample.category, name].append(fact.sample)
        if fact.size is not None:
            sizes[fact.sample.category].add(fact.size)
    totals = Counter(fact.sample.category for fact in facts)
    for (category, name), found in sorted(special.items()):
        some = f" (the first is '{found[0].name(root)}')" if len(found) < totals[category] else ""
        what = f"{len(found)} of {totals[category]} images{some}: {_CONVERSIONS[name]}."
        yield Fault("note", name, category, what)
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
