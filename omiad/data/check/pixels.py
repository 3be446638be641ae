"""Rules about the pixels of photographs and masks."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from omiad.data.check.facts import Conversion, Facts
from omiad.data.check.fault import Fault, Level
from omiad.tiling import INPUT_SIDE, WHOLE, recommended
from omiad.types import Sample

_WHITE_LEVELS = {255: 8, 1023: 10, 4095: 12, 16_383: 14}
"""Brightest value of cameras, and their bits; a file of 16 bits may hold fewer."""

_MOST_MARKED = 0.5  # part of an image


def white_levels(facts: Sequence[Facts]) -> Iterator[Fault]:
    """Warn of 16-bit photographs that use a few bits only, and would be read nearly black."""
    peaks: dict[tuple[str, bool], list[int]] = defaultdict(list)
    for fact in facts:
        if fact.peak is not None:
            peaks[fact.sample.category, fact.is_wide_colour].append(fact.peak)
    for (category, is_colour), found in sorted(peaks.items()):
        level = next((level for level in _WHITE_LEVELS if max(found) <= level), None)
        if level is None:
            continue
        at_most = "at most " if is_colour else ""
        what = (
            f"The brightest value of {len(found)} photographs of 16 bits is {at_most}{max(found)} "
            f"of 65535, as of a camera of {_WHITE_LEVELS[level]} bits; they are read as dark."
        )
        fix = f"Set --data.white_level {level}. The option holds for all categories."
        if is_colour:
            fix = "Convert them to 8 bits; of 16-bit colour only the high byte can be read."
        yield Fault("warning", "white level", category, what, fix)


def masks(root: Path, facts: Sequence[Facts], *, level: Level) -> Iterator[Fault]:
    """Name masks that are not two-valued, or that cover most of an image."""
    for fact in facts:
        for mask in fact.masks:
            where = mask.path.relative_to(root).as_posix()
            cut = "pixels above half of the level of their region" if mask.is_soft else "all but 0"
            what = f"The mask has {mask.num_levels} levels; {cut} count as defective."
            if mask.is_lossy:
                fix = "Export the mask as PNG; JPEG blurs its edges."
                yield Fault(level, "JPEG mask", where, what, _unless(level, fix))
            elif mask.num_levels > 2:
                fix = "Look at the mask, and export it with two levels if this is not meant."
                yield Fault(level, "mask levels", where, what, _unless(level, fix))
        if fact.marked > _MOST_MARKED:
            where = fact.masks[0].path.relative_to(root).as_posix()
            what = f"The mask covers {100 * fact.marked:.0f} % of the image; it may be inverted."
            fix = "Look at the mask; defects are white, and the rest is black."
            yield Fault(level, "large mask", where, what, _unless(level, fix))


def conversions(root: Path, facts: Sequence[Facts]) -> Iterator[Fault]:
    """Say how special images are read."""
    totals = Counter(fact.sample.category for fact in facts)
    special: dict[tuple[str, Conversion], list[Sample]] = defaultdict(list)
    for fact in facts:
        for conversion in fact.conversions:
            special[fact.sample.category, conversion].append(fact.sample)
    for (category, (name, how)), found in sorted(special.items()):
        some = f" (the first is '{found[0].name(root)}')" if len(found) < totals[category] else ""
        what = f"{len(found)} of {totals[category]} images{some}: {how}."
        yield Fault("note", name, category, what)
    for category in sorted(totals):
        sizes = {fact.size for fact in facts if fact.size and fact.sample.category == category}
        if len(sizes) > 1:
            (w, h), (wide, high) = min(sizes), max(sizes)
            what = f"{len(sizes)} sizes, {w} x {h} to {wide} x {high}; all are resized to one."
            yield Fault("note", "unequal sizes", category, what)


def tiles(facts: Sequence[Facts]) -> Iterator[Fault]:
    """Recommend tiles for photographs that one tile would squash or shrink much."""
    sizes: dict[str, Counter[tuple[int, int]]] = defaultdict(Counter)
    for fact in facts:
        if fact.size:
            sizes[fact.sample.category][fact.size] += 1
    for category, found in sorted(sizes.items()):
        [((width, height), _)] = found.most_common(1)
        if (grid := recommended(width, height)) != WHOLE:
            what = (
                f"Most photographs have {width} x {height} pixels. One square of {INPUT_SIDE} "
                f"pixels would distort them, or hide small defects. --data.tiles "
                f"[{grid[0]}, {grid[1]}] keeps more, and takes {grid[0] * grid[1]} times as long."
            )
            yield Fault("note", "large photographs", category, what)


def _unless(level: Level, fix: str) -> str:
    """Return a fix, unless the fault is a note, which needs none."""
    return "" if level == "note" else fix
