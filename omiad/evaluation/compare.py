"""Which differences between runs are real: paired bootstrap, and spread over seeds."""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from omiad.errors import InputError
from omiad.metrics import METRICS
from omiad.metrics.bootstrap import ScoredImages, deviations, draw, interval, means
from omiad.metrics.table import HEADINGS, figures_table
from omiad.results import (
    Bootstrap,
    images_path,
    read_images,
    read_results,
    refuse_other_measures,
)


class Difference(NamedTuple):
    """A figure of a second run minus that of a first, with the interval of the draws."""

    value: float
    low: float
    high: float

    @property
    def is_real(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def compare(
    results: list[str], *, seeds: bool = False, num_resamples: int = 1000, seed: int = 0
) -> None:
    """Print by how much a second run differs from a first, and whether the difference is real.

    The same images are drawn for both runs, so that what is hard in an image cancels out. A
    difference is called real, and printed bold, if 95 % of the draws lie on one side of zero.

    Args:
        results: Two files results.json; figures are those of the second minus those of the first.
            With --seeds any number.
        seeds: Take the runs as seeds of one model instead: mean and standard deviation.
        num_resamples: Draws of the images.
        seed: Seed of the draws.

    Raises:
        InputError: If the runs cannot be compared.
    """
    if Bootstrap(num_resamples, seed).num == 0:
        raise InputError("A comparison needs draws. Give --num_resamples at least 1.")
    paths = [Path(path) for path in results]
    if len(paths) < 2 or (len(paths) > 2 and not seeds):
        raise InputError(
            f"Give two results.json to compare, or several with --seeds, but not {len(paths)}."
        )
    records = [read_results(path) for path in paths]
    refuse_other_measures(dict(zip(paths, records, strict=True)))
    if seeds:
        Console().print(_seeds_table(records))
    else:
        found = differences(paths[0], paths[1], num=num_resamples, seed=seed)
        Console().print(_differences_table(found, paths))


def differences(
    first: Path, second: Path, *, num: int, seed: int
) -> dict[str, dict[str, Difference]]:
    """Return the differences of each category that both runs have, and of their mean.

    Args:
        first: A results.json.
        second: Another, of the same images.
        num: Draws of the images.
        seed: Of the draws.

    Raises:
        InputError: If the runs' images differ.
    """
    figures = [read_results(path)["categories"] for path in (first, second)]
    moved, value = {}, {}
    pairs = zip_longest(*(read_images(images_path(path)) for path in (first, second)))
    for number, pair in enumerate(pairs):
        if None in pair or pair[0][0] != pair[1][0]:
            names = [sorted(set(f)) for f in figures]
            raise InputError(
                f"'{first}' has the categories {', '.join(names[0])}, but '{second}' "
                f"{', '.join(names[1])}. Compare runs on the same data."
            )
        (category, one), (_, other) = pair
        one, other = _matched(one, other, category)
        rng = np.random.default_rng([seed, number])
        times = draw(one.is_anomalous, num=num, rng=rng)
        rows = deviations(one, times), deviations(other, times)
        before, after = (each[category] for each in figures)
        both = [
            k
            for k in METRICS
            if k in rows[0].keys() & rows[1].keys() and None not in (before[k], after[k])
        ]
        moved[category] = {k: rows[1][k] - rows[0][k] for k in both}
        value[category] = {k: np.array([after[k] - before[k]]) for k in both}
    value, moved = means(value), means(moved)
    return {
        name: {
            key: Difference(float(row[key][0]), *interval(float(row[key][0]), moved[name][key]))
            for key in row
        }
        for name, row in value.items()
    }


def _matched(
    one: ScoredImages, other: ScoredImages, category: str
) -> tuple[ScoredImages, ScoredImages]:
    """Put the images of two runs in the same order."""
    unlike = set(one.name.tolist()) ^ set(other.name.tolist())
    if unlike:
        raise InputError(
            f"The runs saw different images of '{category}': {len(unlike)} are in one alone, the "
            f"first is {min(unlike)}. Compare runs on the same data."
        )
    one, other = one.sorted(), other.sorted()
    unlike_labels = one.name[one.is_anomalous != other.is_anomalous]
    if len(unlike_labels):
        raise InputError(
            f"{len(unlike_labels)} images of '{category}' are defective in one run alone, the "
            f"first is {unlike_labels[0]}. Compare runs on the same data."
        )
    return one, other


def _differences_table(found: dict[str, dict[str, Difference]], paths: Sequence[Path]) -> Table:
    real = sum(each.is_real for each in found["mean"].values())
    table = figures_table(
        title=f"{paths[1]} minus {paths[0]}",
        caption=f"Below each difference the interval of 95 % of the draws, from and to; bold where "
        f"it leaves out zero ({real} of {len(found['mean'])} means).",
    )
    for name, row in found.items():
        if name == "mean":
            table.add_section()
        table.add_row(name, *(_cell(row.get(key)) for key in HEADINGS))
    return table


def _cell(difference: Difference | None) -> str:
    if difference is None:
        return "-"
    value, low, high = (100 * number for number in difference)
    text = f"{value:+.1f}\n{low:.1f}\n{high:.1f}"
    return f"[bold]{text}[/bold]" if difference.is_real else text


def _seeds_table(records: Sequence[dict[str, Any]]) -> Table:
    """Lay out mean and standard deviation over runs."""
    table = figures_table(title=f"mean and standard deviation over {len(records)} runs")
    rows = [{**record["categories"], "mean": record["mean"]} for record in records]
    for name in dict.fromkeys(name for row in rows for name in row):
        if name == "mean":
            table.add_section()
        values = [[row.get(name, {}).get(key) for row in rows] for key in HEADINGS]
        table.add_row(name, *(_spread(figures) for figures in values))
    return table


def _spread(figures: Sequence[float | None]) -> str:
    known = [100 * figure for figure in figures if figure is not None]
    if len(known) < len(figures):
        return "-"
    return f"{np.mean(known):.1f}\n± {np.std(known, ddof=1):.1f}"
