"""The rules that a data set is checked by; each fault says how to mend it."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from omiad.data.check.duplicates import identical, near
from omiad.data.check.facts import Facts
from omiad.data.layouts import Index
from omiad.data.layouts.folder import MASK_NAMES
from omiad.data.layouts.listing import images
from omiad.data.layouts.published import PUBLISHED, Counts
from omiad.types import NORMAL, Sample

Level = Literal["error", "warning", "note"]

IMBALANCE = 10
"""Ratio of the largest to the smallest number of training images that is worth a warning."""


class Fault(NamedTuple):
    """Something about a data set that a user should know.

    Attributes:
        level: error where results would be wrong or a run stops, warning where they may mislead,
            note where nothing is to be done.
        kind: Short name.
        where: Path below the root, or a category.
        what: A sentence.
        fix: A sentence, empty for notes.
    """

    level: Level
    kind: str
    where: str
    what: str
    fix: str = ""


def find(root: Path, index: Index, facts: Sequence[Facts]) -> list[Fault]:
    """Apply all rules; errors first, by kind."""
    samples = index.samples
    found = [
        *_unreadable(root, samples, facts),
        *_masks(root, samples, facts),
        *_stray_masks(root, index),
        *_counts(index),
        *_twice(root, samples, facts),
        *_balance(samples),
        *_notes(root, samples, facts),
    ]
    order: tuple[Level, ...] = ("error", "warning", "note")
    return sorted(found, key=lambda fault: (order.index(fault.level), fault.kind))


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
        image = samples[fact.row].image
        where = _below(root, image)
        if fact.error and not image.exists():
            fix = f"Unpack '{where}' again, or take its line out of the split."
            yield Fault("error", "missing image", where, "It is listed but not there.", fix)
        elif fact.error:
            fix = "Copy it again from its source, or remove it with its mask."
            yield Fault("error", "unreadable image", where, fact.error, fix)


def _masks(root: Path, samples: Sequence[Sample], facts: Sequence[Facts]) -> Iterator[Fault]:
    for fact in facts:
        mask = samples[fact.row].mask
        if mask is None:
            continue
        where = _below(root, mask)
        if fact.mask_error:
            kind = "mask size" if "Give the mask" in fact.mask_error else "unreadable mask"
            fix = "Export it again from the annotation, at the size of its image."
            yield Fault("error", kind, where, fact.mask_error, fix)
        elif fact.mask_is_empty:
            fix = "Mark the defect, or move the image to test/good if it has none."
            yield Fault(
                "error", "empty mask", where, "It marks no pixel of a defective image.", fix
            )
    yield from _without_mask(root, samples)


def _without_mask(root: Path, samples: Sequence[Sample]) -> Iterator[Fault]:
    groups: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        if sample.is_anomalous:
            groups[sample.category][sample.defect].append(sample)
    for category, defects in groups.items():
        if not any(s.mask for rows in defects.values() for s in rows):
            what = "No defect has a mask: image figures only, pixel figures stay undefined."
            yield Fault("note", "no masks", category, what)
            continue
        for defect, rows in defects.items():
            bare = [s for s in rows if s.mask is None]
            if len(bare) == len(rows):
                what = f"None of the {len(rows)} images has a mask, unlike other defects."
                fix = f"Add masks, or know that pixel figures leave '{defect}' out."
                yield Fault("warning", "no masks", f"{category}/{defect}", what, fix)
                continue
            for sample in bare:
                what = "It has no mask, though others of its defect have."
                fix = f"Add a mask named '{sample.image.stem}_mask.png', or correct its name."
                yield Fault("error", "no mask", _below(root, sample.image), what, fix)


def _stray_masks(root: Path, index: Index) -> Iterator[Fault]:
    if index.layout in ("realiad", "realiad_sv"):  # masks lie among the images, named by the split
        return
    used = {sample.mask for sample in index.samples}
    bare: dict[str, list[str]] = defaultdict(list)
    for sample in index.samples:
        if sample.is_anomalous and sample.mask is None:
            bare[f"{sample.category}/{sample.defect}"].append(sample.image.stem)
    stems = {(s.category, s.defect, s.image.stem) for s in index.samples if s.split == "test"}
    for folder, _, _ in os.walk(root):
        parts = Path(folder).relative_to(root).parts
        if not set(MASK_NAMES) & set(parts) or parts[-1] == NORMAL:
            continue
        for path in images(Path(folder)):
            stem = path.stem.removesuffix("_mask")
            twin = any(s == stem and defect == parts[-1] for _, defect, s in stems)
            if path not in used and not twin:
                what = "No test image belongs to this mask."
                alone = bare.get(f"{parts[0]}/{parts[-1]}", [])
                name = f"'{alone[0]}_mask{path.suffix}'" if len(alone) == 1 else "like its image"
                fix = f"Name it {name}, or remove it."
                yield Fault("error", "stray mask", _below(root, path), what, fix)


def _counts(index: Index) -> Iterator[Fault]:
    published = PUBLISHED.get(index.dataset)
    if published is None:
        return
    found = count(index.samples)
    names = ("training", "normal test", "defective test")
    again = f"Unpack {published.title} again, to an empty folder."
    for category, expected in published.categories.items():
        if category not in found:
            what = f"{published.title} has this category, but it is not here."
            fix = "Unpack it too, or know that means are over fewer categories than published."
            yield Fault("warning", "category missing", category, what, fix)
        elif expected is not None:
            for name, here, there in zip(names, found[category], expected, strict=True):
                if there >= 0 and here != there:
                    what = f"{here} {name} images, but {published.title} has {there}."
                    yield Fault("error", "count", category, what, again)
    for category in set(found) - set(published.categories):
        what = f"{published.title} has no such category."
        yield Fault("warning", "category unknown", category, what, "Move it to a root of its own.")
    if set(found) == set(published.categories):
        totals = [sum(column) for column in zip(*found.values(), strict=True)]
        for name, here, there in zip(names, totals, published.total, strict=True):
            if here != there:
                what = f"{here} {name} images in all, but {published.title} has {there}."
                yield Fault("error", "count", "all categories", what, again)


def _twice(root: Path, samples: Sequence[Sample], facts: Sequence[Facts]) -> Iterator[Fault]:
    same = set(identical(samples, facts))
    for a, b in sorted(same):
        first, second = samples[a], samples[b]
        what = f"Its bytes are those of '{_below(root, first.image)}'"
        where = _below(root, second.image)
        if first.split != second.split:
            fix = "Remove one: a trained image measures memory, not detection."
            yield Fault("error", "train in test", where, f"{what}, a training image.", fix)
        elif first.is_anomalous != second.is_anomalous:
            fix = "Remove the one with the wrong label."
            yield Fault("error", "two labels", where, f"{what}, with another label.", fix)
        else:
            yield Fault("warning", "duplicate", where, f"{what}.", "Remove one.")
    for a, b in near(samples, facts, same):
        what = f"It nearly equals the training image '{_below(root, samples[a].image)}'."
        fix = "Look at both, and remove one if they are the same photograph."
        yield Fault("warning", "near duplicate", _below(root, samples[b].image), what, fix)


def _balance(samples: Sequence[Sample]) -> Iterator[Fault]:
    counts = {name: c.train for name, c in count(samples).items()}
    few, many = min(counts, key=lambda n: counts[n]), max(counts, key=lambda n: counts[n])
    if counts[many] >= IMBALANCE * counts[few]:
        what = f"{counts[few]} training images, but '{many}' has {counts[many]}."
        fix = "Train with --data.sampling balanced, or take more photographs."
        yield Fault("warning", "imbalance", few, what, fix)


def _notes(root: Path, samples: Sequence[Sample], facts: Sequence[Facts]) -> Iterator[Fault]:
    rules = {
        "grayscale": "repeated to three channels",
        "black and white": "repeated to three channels",
        "16-bit": "scaled from 0..65535 to 0..255",
        "alpha": "read without their transparency",
        "palette": "read as their colours",
        "CMYK": "converted to RGB",
        "rotated by EXIF": "turned upright",
    }
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
        some = f" (the first: '{_below(root, found[0].image)}')"
        which = f"{len(found)} of {totals[category]} images{some * (len(found) < totals[category])}"
        yield Fault("note", name, category, f"{which}: {rules[name]}.")
    for category, several in sorted(sizes.items()):
        if len(several) > 1:
            (w, h), (wide, high) = min(several), max(several)
            what = f"{len(several)} sizes, {w} x {h} to {wide} x {high}; all become one square."
            yield Fault("note", "unequal sizes", category, what)
    for category, counts in count(samples).items():
        for name, number in (("normal", counts.good), ("defective", counts.defective)):
            if number == 0:
                what = f"No {name} test images, so that figures stay undefined."
                yield Fault("note", "cannot be measured", category, what)


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
