"""`omiad data check`: look for faults in a data set before a run trips over them."""

import json as json_format
import logging
from functools import partial
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table

from omiad.data.check.facts import Facts, gather
from omiad.data.check.faults import Fault, count, find
from omiad.data.layouts import Index, Layout, index_dataset
from omiad.data.layouts.published import PUBLISHED

logger = logging.getLogger(__name__)

_SHOWN = 5
"""Faults of one kind that the table shows; the JSON has all."""


def check(root: str, *, layout: Layout = "auto", num_workers: int = 0, json: bool = False) -> bool:
    """Look for faults in a data set and say how to mend each; return whether it can be used.

    Reads every image and mask whole. Faults are unreadable files, masks that do not fit, counts
    that differ from the published ones, images both trained on and tested, and so on.

    Args:
        root: Folder of the data set.
        layout: How it lies there; auto looks at the sub-folders.
        num_workers: Processes that read images.
        json: Print one JSON object instead of tables.

    Raises:
        MissingInputError: If the root does not exist.
        InputError: If no layout fits, or the data set is too incomplete to be listed.
    """
    folder = Path(root).expanduser()
    index = index_dataset(folder, layout)
    facts = gather(index.samples, num_workers=num_workers, progress=not json)
    faults = find(folder, index, facts)
    ok = not any(fault.level == "error" for fault in faults)
    console = Console()
    if json:
        record = {
            "ok": ok,
            "root": str(folder),
            "layout": index.layout,
            "dataset": index.dataset,
            "categories": {name: c._asdict() for name, c in count(index.samples).items()},
            "faults": [fault._asdict() for fault in faults],
        }
        console.print(json_format.dumps(record, indent=2), markup=False, soft_wrap=True)
        return ok
    console.print(index.summary(), highlight=False, soft_wrap=True)
    console.print(_categories(index, facts))
    _print_faults(console, faults)
    verdict = "ok: it can be used" if ok else "not ok: mend the errors first"
    levels = [fault.level for fault in faults]
    console.print(
        f"{verdict} ({levels.count('error')} errors, {levels.count('warning')} warnings, "
        f"{levels.count('note')} notes)",
        highlight=False,
    )
    return ok


def _categories(index: Index, facts: list[Facts]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("category", "train", "test good", "test defective", "masks", "size"):
        table.add_column(heading, justify="left" if heading in ("category", "size") else "right")
    published = PUBLISHED.get(index.dataset)
    for name, counts in count(index.samples).items():
        expected = published and published.categories.get(name)
        rows = [fact for fact in facts if index.samples[fact.row].category == name]
        sizes = {fact.size for fact in rows if fact.size}
        masks = sum(index.samples[fact.row].mask is not None for fact in rows)
        size = " x ".join(map(str, next(iter(sizes)))) if len(sizes) == 1 else "unequal"
        shown = [
            str(here) if not expected or there in (here, -1) else f"{here} (of {there})"
            for here, there in zip(counts, expected or counts, strict=True)
        ]
        table.add_row(name, *shown, str(masks), size)
    return table


def _print_faults(console: Console, faults: list[Fault]) -> None:
    show = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    for (level, kind), group in groupby(faults, key=lambda fault: (fault.level, fault.kind)):
        found = list(group)
        show(f"\n{level}: {kind} ({len(found)})")
        for fault in found[:_SHOWN]:
            show(f"  {fault.where}: {fault.what}")
            if fault.fix:
                show(f"    fix: {fault.fix}")
        if len(found) > _SHOWN:
            show(f"  and {len(found) - _SHOWN} more; --json lists all")
    if faults:
        console.print()
