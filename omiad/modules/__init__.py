"""The two training stages as LightningModules."""

from omiad.modules.amdm import AMDMModule as AMDMModule
from omiad.modules.detection import DetectionModule as DetectionModule
from omiad.modules.omiad import OmiADModule as OmiADModule

__all__ = ["AMDMModule", "DetectionModule", "OmiADModule"]
