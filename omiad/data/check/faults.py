"""The rules by which a data set is checked; each fault says how to fix it."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from omiad.data.check.facts import Facts, identical, near
from omiad.data.check.fault import Fault, Level
from omiad.data.check.pixels import conversions, masks, tiles, white_levels
from omiad.data.check.unused import Tree, tree_below, unused
from omiad.data.layouts import FEW_PHOTOGRAPHS, Index
from omiad.data.layouts.listing import (
    MASK_NAMES,
    NORMAL_NAMES,
    is_for_masks,
    is_normal,
    words,
)
from omiad.data.layouts.published import ALL, PUBLISHED, Counts, count
from omiad.photographs import IMAGE_SUFFIXES
from omiad.types import NORMAL, Sample

IMBALANCE = 10  # warn if one category has so many times the training images of another
FIXES = {
    "missing image": "Unpack the image again, or remove its line from the split.",
    "unreadable image": "Copy the image again from its source, or remove the image and its mask.",
    "mask size": "Export the mask again, at the size of its image.",
    "unreadable mask": "Export the mask again from the annotation.",
    "empty mask": "Mark the defect, or move the image to test/good if it has none.",
}


def find(root: Path, index: Index, facts: Sequence[Facts]) -> list[Fault]:
    """Apply all rules and return the faults, errors first, sorted by kind."""
    tree = tree_below(root)
    stray = list(_stray_masks(root, index, tree))
    found = [
        *_broken(root, facts),
        *_without_mask(root, index.samples),
        *stray,
        *_counts(index),
        *_twice(root, facts),
        *_categories(index.samples),
        *white_levels(facts),
        *masks(root, facts, level="note" if index.dataset in PUBLISHED else "warning"),
        *conversions(root, facts),
        *tiles(facts),
        *_locked(tree),
        *unused(root, index, tree, {fault.where for fault in stray}),
    ]
    return sorted(found, key=lambda fault: (get_args(Level).index(fault.level), fault.kind))


def _broken(root: Path, facts: Sequence[Facts]) -> Iterator[Fault]:
    for fact in facts:
        for kind, path, message in fact.broken:
            yield Fault("error", kind, path.relative_to(root).as_posix(), message, FIXES[kind])


def _locked(tree: Tree) -> Iterator[Fault]:
    for folder in tree.locked:
        what, fix = "The folder cannot be opened.", "Give yourself the right to read the folder."
        yield Fault("error", "locked folder", folder.as_posix(), what, fix)


def _without_mask(root: Path, samples: Sequence[Sample]) -> Iterator[Fault]:
    groups: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        if sample.is_anomalous:
            groups[sample.category][sample.defect].append(sample)
    for category, defects in groups.items():
        bare = {name: [s for s in rows if not s.masks] for name, rows in defects.items()}
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


def _stray_masks(root: Path, index: Index, tree: Tree) -> Iterator[Fault]:
    if index.layout in ("realiad", "realiad_sv"):  # the split names the masks, among the images
        return
    used = {mask.relative_to(root) for sample in index.samples for mask in sample.masks}
    tested = {(s.defect, s.image.stem) for s in index.samples if s.split == "test"}
    bare = [s for s in index.samples if s.is_anomalous and not s.masks]
    for path in tree.files:
        parts = path.parts[:-1]
        if not any(map(is_for_masks, parts)) or is_normal(parts[-1]):
            continue
        if path.name.startswith(".") or path.suffix.lower() not in IMAGE_SUFFIXES or path in used:
            continue
        if (parts[-1], path.stem.rpartition("_mask")[0] or path.stem) not in tested:
            peers = [s for s in bare if (s.category, s.defect) == (parts[0], parts[-1])]
            mask = f"'{peers[0].image.stem}_mask{path.suffix}'" if len(peers) == 1 else None
            fix = f"Rename it to {mask or 'the name of its image'}, or remove it."
            what = "No test image belongs to this mask."
            yield Fault("error", "stray mask", path.as_posix(), what, fix)


def _counts(index: Index) -> Iterator[Fault]:
    published = PUBLISHED.get(index.dataset)
    if published is None:
        return
    title, found, expected = published.title, count(index.samples), published.categories
    for category in [name for name in expected if name not in found]:
        what = f"{title} has this category, but the data set does not."
        fix = "Unpack it too, or do not compare the means with published ones."
        yield Fault("warning", "category missing", category, what, fix)
    for category in [name for name in found if name not in expected]:
        what, fix = f"{title} has no such category.", "Move the category to another root."
        yield Fault("warning", "category unknown", category, what, fix)
    if found.keys() == expected.keys():
        totals = Counts(*(sum(column) for column in zip(*found.values(), strict=True)))
        found, expected = found | {ALL: totals}, expected | {ALL: published.total}
    for where in [name for name in expected if name in found]:
        names = ("training", "normal test", "defective test")
        for name, here, there in zip(names, found[where], expected[where], strict=True):
            if there >= 0 and here != there:
                what = f"There are {here} {name} images, but {title} has {there}."
                fix = f"Unpack {title} again to an empty folder."
                yield Fault("error", "count", where, what, fix)


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


def _categories(samples: Sequence[Sample]) -> Iterator[Fault]:
    counts = count(samples)
    for category, (train, *test) in counts.items():
        if train < FEW_PHOTOGRAPHS:
            what = (
                f"Training photographs: {train}. With fewer than {FEW_PHOTOGRAPHS}, the scale of "
                f"the anomaly maps and the memory rest on too few normal images."
            )
            fix = f"Take at least {FEW_PHOTOGRAPHS} photographs of normal products."
            yield Fault("warning", "few photographs", category, what, fix)
        for name, number in zip(("normal", "defective"), test, strict=True):
            if number == 0:
                what = f"There are no {name} test images, so the metrics are undefined."
                yield Fault("note", "cannot be measured", category, what)
        yield from _doubtful(category, {s.defect for s in samples if s.category == category}, test)
    few, many = (pick(counts, key=lambda name: counts[name].train) for pick in (min, max))
    if counts[many].train >= IMBALANCE * counts[few].train:
        what = f"{counts[few].train} training images, but '{many}' has {counts[many].train}."
        fix = "Train with --data.sampling balanced, or take more photographs."
        yield Fault("warning", "imbalance", few, what, fix)


def _doubtful(category: str, names: set[str], tested: Sequence[int]) -> Iterator[Fault]:
    """Name the folders that count as defects but may hold normal images or masks."""
    defects, (good, defective) = sorted(names - {NORMAL}), tested
    if defective and not good:
        what = f"No test image counts as normal: the folders {_quoted(defects)} are all defects."
        fix = "If one of them holds normal images, call it good, normal or ok."
        yield Fault("warning", "no normal folder", category, what, fix)
    doubtful = [name for name in defects if {*NORMAL_NAMES, *MASK_NAMES} & {*words(name)}]
    if doubtful:
        what = f"By its name, {_quoted(doubtful)} counts as a defect."
        fix = "If it holds normal images, call it good. If it holds masks, use ground_truth."
        yield Fault("warning", "doubtful defect", category, what, fix)


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:4]) + (", ..." if len(names) > 4 else "")
