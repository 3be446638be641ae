"""The two training stages, and a decoder to look into them, as LightningModules."""

from omiad.modules.amdm import AMDMModule as AMDMModule
from omiad.modules.decoder import DecoderModule as DecoderModule
from omiad.modules.detection import DetectionModule as DetectionModule
from omiad.modules.omiad import OmiADModule as OmiADModule

__all__ = ["AMDMModule", "DecoderModule", "DetectionModule", "OmiADModule"]
