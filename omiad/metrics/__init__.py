"""Exact metrics of anomaly detection and localisation from raw scores.

`detection` holds the figures of a data set and `category` those of one category. Image figures are
in `images` and pixel figures in `pixels`; both are computed by `ranking`. Pixels are counted in a
`histogram`, where each defect region weighs the same. `image_counts` and `bootstrap`
resample images, `estimators` reproduces published code, and `table` prints.
"""

from omiad.metrics.detection import METRICS, AnomalyMetrics, Results
from omiad.metrics.pixels import PixelDetection
from omiad.metrics.table import results_table

__all__ = ["METRICS", "AnomalyMetrics", "PixelDetection", "Results", "results_table"]
