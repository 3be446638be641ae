"""One model for every product: multi-class anomaly detection in one denoising step (OmiAD).

A name is imported when it is first used, so that `omiad --help` need not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omiad.data import FeatureDataModule as FeatureDataModule
    from omiad.detector import Detector as Detector
    from omiad.modules import AMDMModule as AMDMModule
    from omiad.modules import OmiADModule as OmiADModule
    from omiad.photographs import to_canvas as to_canvas
    from omiad.ray import RayScorer as RayScorer
    from omiad.types import Prediction as Prediction
    from omiad.types import Sample as Sample
    from omiad.version import __version__ as __version__
    from omiad.workflow import train as train

_MODULES = {
    "AMDMModule": "omiad.modules",
    "Detector": "omiad.detector",
    "FeatureDataModule": "omiad.data",
    "OmiADModule": "omiad.modules",
    "Prediction": "omiad.types",
    "RayScorer": "omiad.ray",
    "Sample": "omiad.types",
    "__version__": "omiad.version",
    "to_canvas": "omiad.photographs",
    "train": "omiad.workflow",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """Import a public name from its module (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'omiad' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)
