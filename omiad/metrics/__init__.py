"""Exact metrics of anomaly detection and localisation from raw scores.

`detection` holds the figures of a whole data set. Image figures are in `images`, pixel figures in
`pixels`; both are `ranking` figures. Pixels are counted in a `histogram`, and each defect region in
them weighs the same (`regions`). `image_counts` and `bootstrap` resample images, `estimators`
reproduce published code, and `table` prints.
"""

from omiad.metrics.detection import METRICS as METRICS
from omiad.metrics.detection import AnomalyMetrics as AnomalyMetrics
from omiad.metrics.detection import Results as Results
from omiad.metrics.pixels import PixelDetection as PixelDetection
from omiad.metrics.table import results_table as results_table

__all__ = ["METRICS", "AnomalyMetrics", "PixelDetection", "Results", "results_table"]
