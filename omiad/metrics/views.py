"""Figures of samples that are photographed from several sides, as in Real-IAD.

A sample scores as high as its highest view, and is anomalous if one of them is.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from omiad.metrics.images import image_figures
from omiad.types import Sample

SAMPLE = "sample"
"""Key of the figures of samples, beside those of each view."""


def view_figures(
    views: Sequence[Sample], score: NDArray[np.float64], is_anomalous: NDArray[np.bool_]
) -> dict[str, dict[str, float]]:
    """Return the image figures of samples and of each view ("C1", ...) of a category.

    Args:
        views: The images (N).
        score: Image scores (N,).
        is_anomalous: Labels (N,).

    Returns:
        Figures by "sample" and view, those left out that lack normals or anomalies; none if an
        image belongs to no sample.
    """
    groups: dict[str, dict[Hashable, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, view in enumerate(views):
        if view.sample_id is None or view.view is None:
            return {}
        groups[SAMPLE][view.sample_id].append(row)
        groups[f"C{view.view}"][row].append(row)
    figures = {}
    for key in sorted(groups):
        scores = np.array([score[rows].max() for rows in groups[key].values()])
        labels = np.array([is_anomalous[rows].any() for rows in groups[key].values()])
        if labels.any() and not labels.all():
            figures[key] = image_figures(scores, labels)
    return figures
