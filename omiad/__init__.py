"""One model for every product: multi-class anomaly detection in one denoising step (OmiAD).

A name is imported when it is first used, so that `omiad --help` need not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from omiad.version import __version__

if TYPE_CHECKING:
    from omiad.data import FeatureDataModule
    from omiad.detector import Detector
    from omiad.modules import AMDMModule, OmiADModule
    from omiad.types import Prediction, Sample

__all__ = [
    "AMDMModule",
    "Detector",
    "FeatureDataModule",
    "OmiADModule",
    "Prediction",
    "Sample",
    "__version__",
]

_MODULES = {
    "AMDMModule": "omiad.modules",
    "Detector": "omiad.detector",
    "FeatureDataModule": "omiad.data",
    "OmiADModule": "omiad.modules",
    "Prediction": "omiad.types",
    "Sample": "omiad.types",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'omiad' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)
