"""One model for every product: multi-class anomaly detection in one denoising step (OmiAD)."""

from omiad.data import FeatureDataModule
from omiad.detector import Detector
from omiad.modules import AMDMModule, OmiADModule
from omiad.types import Prediction, Sample
from omiad.version import __version__

__all__ = [
    "AMDMModule",
    "Detector",
    "FeatureDataModule",
    "OmiADModule",
    "Prediction",
    "Sample",
    "__version__",
]
