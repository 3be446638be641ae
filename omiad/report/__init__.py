"""Pictures, drawn with Pillow and numpy alone, and pages of them."""

from omiad.report.colors import heat as heat
from omiad.report.command import free_page as free_page
from omiad.report.command import report as report
from omiad.report.curves import training_curves as training_curves
from omiad.report.panels import PanelRow as PanelRow
from omiad.report.panels import overlay as overlay
from omiad.report.panels import panel as panel
from omiad.report.panels import write_panels as write_panels
from omiad.report.predictions import PredictionPage as PredictionPage

__all__ = [
    "PanelRow",
    "PredictionPage",
    "free_page",
    "heat",
    "overlay",
    "panel",
    "report",
    "training_curves",
    "write_panels",
]
