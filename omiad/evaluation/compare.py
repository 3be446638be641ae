"""Which differences between runs are real: paired bootstrap, and spread over seeds."""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table
from rich.text import Text

from omiad.errors import InputError
from omiad.metrics import METRICS
from omiad.metrics.bootstrap import ScoredImages, deviations, draw, interval, means
from omiad.metrics.ranking import Array
from omiad.metrics.table import HEADINGS, figures_table
from omiad.names import one_line
from omiad.record import read_results, refuse_other_measures
from omiad.results import Bootstrap, read_images
from omiad.terminal import console


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
    results: list[str],
    *,
    minus: list[str] | None = None,
    seeds: bool = False,
    num_resamples: int = 1000,
    seed: int = 0,
) -> None:
    """Print how much a second run differs from a first, and whether the difference is real.

    Every draw takes the same images for both runs, so that the difficulty of an image cancels out.
    A difference is called real, and printed bold, if 95 % of the draws lie on one side of zero. If
    a model has several seeds, each draw takes seeds as well.

    Args:
        results: Two files results.json; figures are those of the second minus those of the first.
            With --minus or --seeds any number of files.
        minus: The model to subtract, if models have several seeds: one results.json for each of
            results, in the same order, or a single one.
        seeds: Take the runs as seeds of one model and print mean and standard deviation.
        num_resamples: Draws of the images.
        seed: Seed of the draws.

    Raises:
        InputError: If the runs cannot be compared.
    """
    if Bootstrap(num_resamples, seed).num == 0:
        raise InputError("A comparison needs draws. Give --num_resamples at least 1.")
    if minus and (seeds or len(minus) not in (1, len(results))):
        raise InputError(
            f"--minus takes one run for each of the others, or a single one, and no --seeds; but "
            f"got {len(minus)} for {len(results)}{' with --seeds' if seeds else ''}."
        )
    if not minus and (len(results) < 2 or (len(results) > 2 and not seeds)):
        raise InputError(
            f"Give two results.json to compare, or several with --minus or --seeds, but not "
            f"{len(results)}."
        )
    paths = [Path(path) for path in results]
    subtracted = [Path(path) for path in minus or ()]
    records = {path: read_results(path) for path in (*subtracted, *paths)}
    refuse_other_measures(records)
    if seeds:
        table = _seeds_table([records[path] for path in paths])
    else:
        first, second = (subtracted, paths) if minus else (paths[:1], paths[1:])
        found = differences(first, second, num=num_resamples, seed=seed)
        table = _differences_table(found, first, second)
    console().print(table)


def differences(
    first: Sequence[Path], second: Sequence[Path], *, num: int, seed: int
) -> dict[str | None, dict[str, Difference]]:
    """Return the differences of each category and, under None, of their mean.

    Each draw takes images with replacement, the same for all runs, and as many pairs of runs as
    there are, with replacement. With n seeds the spread over seeds comes out too small by the
    factor sqrt(1 - 1 / n). `first` may be a single run that is subtracted from each.
    """
    runs = list(dict.fromkeys([*first, *second]))
    pairs = list(zip([*first] * (len(second) // len(first)), second, strict=True))
    picked = np.random.default_rng([seed, 0, 1]).integers(len(pairs), size=(num, len(pairs)))
    shares = np.stack([(picked == number).mean(1) for number in range(len(pairs))])
    records = {run: read_results(run) for run in runs}
    figures = {run: record["categories"] for run, record in records.items()}
    rows: dict[str, dict[str, Array]] = {}  # the difference, and how much it changes in each draw
    archives = (read_images(run, record) for run, record in records.items())
    for number, held in enumerate(zip_longest(*archives, fillvalue=("", None))):
        category = held[0][0]
        for run, (name, _) in zip(runs, held, strict=True):
            if name != category:
                raise InputError(
                    f"'{runs[0]}' has the categories {', '.join(sorted(figures[runs[0]]))}, but "
                    f"'{run}' {', '.join(sorted(figures[run]))}. Compare runs on the same data."
                )
        images = _aligned([each for _, each in held if each is not None], category)
        rng = np.random.default_rng([seed, number])
        times = draw(images[0].is_anomalous, num=num, rng=rng)
        found = {run: deviations(one, times) for run, one in zip(runs, images, strict=True)}
        rows[category] = {}
        for key in METRICS:
            of_runs = {run: figures[run][category][key] for run in runs}
            is_drawn = [key in found[run] and np.isfinite(found[run][key]).any() for run in runs]
            if None not in of_runs.values() and all(is_drawn):
                by = np.array([[of_runs[b] - of_runs[a]] for a, b in pairs])
                drawn = by + np.stack([found[b][key] - found[a][key] for a, b in pairs])
                value = by.mean()
                rows[category][key] = np.append(value, (shares * drawn).sum(0) - value)
    return {
        name: {
            key: Difference(float(each[0]), *interval(float(each[0]), each[1:]))
            for key, each in row.items()
        }
        for name, row in means(rows).items()
    }


def _aligned(runs: Sequence[ScoredImages], category: str) -> list[ScoredImages]:
    """Return the images of each run by name, after checking that all have the same."""
    runs = [ScoredImages._make(column[np.argsort(run.name)] for column in run) for run in runs]
    for run in runs:
        unlike = set(runs[0].name.tolist()) ^ set(run.name.tolist())
        if unlike:
            raise InputError(
                f"The runs have different images of '{category}': {len(unlike)} are in one run "
                f"alone, the first is {one_line(min(unlike))}. Compare runs on the same data."
            )
        labelled = run.name[run.is_anomalous != runs[0].is_anomalous]
        if len(labelled):
            raise InputError(
                f"{len(labelled)} images of '{category}' are defective in one run alone, the first "
                f"is {one_line(labelled[0])}. Compare runs on the same data."
            )
    return list(runs)


def _differences_table(
    found: dict[str | None, dict[str, Difference]], first: Sequence[Path], second: Sequence[Path]
) -> Table:
    real = sum(each.is_real for each in found[None].values())
    rows: dict[str | None, list[str | Text]] = {}
    for name, row in found.items():
        texts = {
            key: Text("{:+.1f}\n{:.1f}\n{:.1f}".format(*(100 * x for x in difference)))
            for key, difference in row.items()
        }
        for key, text in texts.items():
            text.stylize("bold" if row[key].is_real else "")
        rows[name] = [texts.get(key, "-") for key in HEADINGS]
    return figures_table(
        rows,
        title=f"{', '.join(map(str, second))} minus {', '.join(map(str, first))}",
        caption=f"Below each difference: both ends of the interval of 95 % of the draws. Bold: the "
        f"interval leaves out zero ({real} of {len(found[None])} means).",
    )


def _seeds_table(records: Sequence[dict[str, Any]]) -> Table:
    """Lay out mean and standard deviation over runs."""
    runs = [{**record["categories"], None: record["mean"]} for record in records]
    rows: dict[str | None, list[str]] = {}
    for name in dict.fromkeys(name for run in runs for name in run):
        rows[name] = []
        for key in HEADINGS:
            figures = [run.get(name, {}).get(key) for run in runs]
            is_known = None not in figures
            percent = [100 * figure for figure in figures if is_known]
            text = f"{np.mean(percent):.1f}\n± {np.std(percent, ddof=1):.1f}" if is_known else "-"
            rows[name].append(text)
    return figures_table(rows, title=f"mean and standard deviation over {len(records)} runs")
