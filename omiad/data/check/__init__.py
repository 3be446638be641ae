"""`omiad data check`: find the faults of a data set before a run fails on them."""

import json as json_format
from itertools import groupby
from typing import get_args

from rich.table import Table

from omiad.data.check.facts import Facts, gather
from omiad.data.check.fault import Fault, Level
from omiad.data.check.faults import FIXES, find
from omiad.data.layouts import Index, Layout, index_dataset
from omiad.data.layouts.published import PUBLISHED, count
from omiad.errors import MOST_NAMED
from omiad.files import expanded
from omiad.terminal import console

_ALL_SHOWN = {*FIXES, "unused photographs", "unused masks"}  # kinds without a limit


def check(root: str, *, layout: Layout = "auto", num_workers: int = 0, json: bool = False) -> bool:
    """Find the faults of a data set, say how to fix each, and return whether it can be used.

    Every image and every mask is read in full. Faults are unreadable files, masks that do not
    match their images, numbers of images that differ from the published ones, training images
    among the test images, and others. Files that no sample uses are listed with the reason.

    Args:
        root: Folder of the data set.
        layout: Layout of the folder. With auto it is detected from the sub-folders.
        num_workers: Number of processes that read images.
        json: Print one JSON object instead of tables.

    Raises:
        MissingInputError: If the root does not exist.
        InputError: If no layout fits, or the data set is too incomplete to be listed.
    """
    folder = expanded(root)
    index = index_dataset(folder, layout)
    facts = gather(index.samples, num_workers=num_workers, progress=not json)
    faults = find(folder, index, facts)
    levels = [fault.level for fault in faults]
    ok = "error" not in levels
    verdict = "ok: the data set can be used" if ok else "not ok: fix the errors first"
    counted = ", ".join(f"{levels.count(level)} {level}s" for level in get_args(Level))
    shown = [index.summary(), _table(index, facts), *_lines(faults), f"{verdict} ({counted})"]
    record = {
        "ok": ok,
        "root": str(folder),
        "layout": index.layout,
        "dataset": index.dataset,
        "categories": {name: c._asdict() for name, c in count(index.samples).items()},
        "faults": [fault._asdict() for fault in faults],
    }
    for item in [json_format.dumps(record, indent=2)] if json else shown:
        console().print(item, soft_wrap=True)
    return ok


def _table(index: Index, facts: list[Facts]) -> Table:
    """Return a table of the categories; next to a count that differs stands the published one."""
    table = Table(box=None, pad_edge=False)
    for heading in ("category", "train", "test good", "test defective", "masks", "size"):
        table.add_column(heading, justify="left" if heading in ("category", "size") else "right")
    published = PUBLISHED[index.dataset].categories if index.dataset in PUBLISHED else {}
    for name, counts in count(index.samples).items():
        mine = [fact for fact in facts if fact.sample.category == name]
        sizes = {fact.size for fact in mine if fact.size}
        masks = sum(bool(fact.sample.masks) for fact in mine)
        size = " x ".join(map(str, *sizes)) if len(sizes) == 1 else "unequal"
        shown = [
            str(here) if there in (here, -1) else f"{here} (of {there})"
            for here, there in zip(counts, published.get(name, counts), strict=True)
        ]
        table.add_row(name, *shown, str(masks), size)
    return table


def _lines(faults: list[Fault]) -> list[str]:
    lines: list[str] = []
    for (level, kind), group in groupby(faults, key=lambda fault: (fault.level, fault.kind)):
        found = list(group)
        lines.append(f"\n{level}: {kind} ({len(found)})")
        shown = found if kind in _ALL_SHOWN else found[:MOST_NAMED]
        for fault in shown:
            lines.append(f"  {fault.where}: {fault.what}")
            lines += [f"    fix: {fault.fix}"] if fault.fix else []
        if len(found) > len(shown):
            lines.append(f"  and {len(found) - len(shown)} more; --json lists all of them")
    return [*lines, ""] if lines else []
