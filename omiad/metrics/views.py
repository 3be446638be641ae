"""Figures of samples that are photographed from several sides, as in Real-IAD.

A file is named <category>_<number>_<label>_C<view>_<time>; what stands before the view names the
sample. A sample scores as high as its highest view, and is anomalous if one of them is.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from omiad.metrics.images import image_figures

_NAME = re.compile(r"(?P<sample>.+_\d{4}_.+)_C(?P<view>\d+)_[^_]+")

SAMPLE = "sample"
"""Key of the figures of samples, beside those of each view."""


def view_figures(
    names: Sequence[str], score: NDArray[np.float64], is_anomalous: NDArray[np.bool_]
) -> dict[str, dict[str, float]]:
    """Return the image figures of samples and of each view ("C1", ...) of a category.

    Args:
        names: Path of each image (N).
        score: Image scores (N,).
        is_anomalous: Labels (N,).

    Returns:
        Figures by "sample" and view, those left out that lack normals or anomalies; none if an
        image is named otherwise.
    """
    matches = [_NAME.fullmatch(PurePosixPath(name).stem) for name in names]
    if None in matches:
        return {}
    groups: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, match in enumerate(matches):
        if match is not None:
            groups[SAMPLE][match["sample"]].append(row)
            groups[f"C{match['view']}"][names[row]].append(row)
    figures = {}
    for key in sorted(groups):
        scores = np.array([score[rows].max() for rows in groups[key].values()])
        labels = np.array([is_anomalous[rows].any() for rows in groups[key].values()])
        if labels.any() and not labels.all():
            figures[key] = image_figures(scores, labels)
    return figures
