"""LightningModules: testing, the two training stages, ADD, and a decoder for pictures."""

from omiad.modules.add import ADDModule as ADDModule
from omiad.modules.amdm import AMDMModule as AMDMModule
from omiad.modules.decoder import DecoderModule as DecoderModule
from omiad.modules.detection import DetectionModule as DetectionModule
from omiad.modules.omiad import OmiADModule as OmiADModule
from omiad.modules.training import TrainingModule as TrainingModule

__all__ = [
    "ADDModule",
    "AMDMModule",
    "DecoderModule",
    "DetectionModule",
    "OmiADModule",
    "TrainingModule",
]
