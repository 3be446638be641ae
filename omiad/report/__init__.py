"""Pictures, drawn with Pillow and numpy alone."""

from omiad.report.colors import heat as heat
from omiad.report.curves import training_curves as training_curves
from omiad.report.panels import PanelRow as PanelRow
from omiad.report.panels import overlay as overlay
from omiad.report.panels import panel as panel
from omiad.report.panels import write_panels as write_panels

__all__ = ["PanelRow", "heat", "overlay", "panel", "training_curves", "write_panels"]
