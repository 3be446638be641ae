"""Reports: pages, charts, panels, and the images that a test keeps for them."""

from omiad.report.archive import gallery_path, read_gallery, write_gallery
from omiad.report.command import report
from omiad.report.kept import NUM_KEPT, KeptImages
from omiad.report.page import free_page
from omiad.report.panels import overlay, write_panels
from omiad.report.predictions import PredictionPage
from omiad.report.training import training_curves

__all__ = [
    "NUM_KEPT",
    "KeptImages",
    "PredictionPage",
    "free_page",
    "gallery_path",
    "overlay",
    "read_gallery",
    "report",
    "training_curves",
    "write_gallery",
    "write_panels",
]
