"""Exact metrics of anomaly detection and localisation from raw scores."""

from omiad.metrics.detection import METRICS as METRICS
from omiad.metrics.detection import AnomalyMetrics as AnomalyMetrics
from omiad.metrics.detection import Results as Results
from omiad.metrics.images import ImageDetection as ImageDetection
from omiad.metrics.pixels import PixelDetection as PixelDetection
from omiad.metrics.region_overlap import au_pro as au_pro
from omiad.metrics.region_overlap import region_weights as region_weights
from omiad.metrics.table import results_table as results_table

__all__ = [
    "METRICS",
    "AnomalyMetrics",
    "ImageDetection",
    "PixelDetection",
    "Results",
    "au_pro",
    "region_weights",
    "results_table",
]
