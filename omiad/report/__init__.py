"""Reports: pages, charts, panels, and the images that a test keeps for them."""

from omiad.report.archive import read_gallery as read_gallery
from omiad.report.archive import write_gallery as write_gallery
from omiad.report.command import report as report
from omiad.report.decisions import decisions as decisions
from omiad.report.kept import NUM_KEPT as NUM_KEPT
from omiad.report.kept import KeptImages as KeptImages
from omiad.report.overlays import marked as marked
from omiad.report.page import free_page as free_page
from omiad.report.page import render_page as render_page
from omiad.report.panels import overlay as overlay
from omiad.report.panels import write_panels as write_panels
from omiad.report.pictures import encoded as encoded
from omiad.report.predictions import Entry as Entry
from omiad.report.predictions import PredictionPage as PredictionPage
from omiad.report.predictions import counted as counted
from omiad.report.predictions import page_entry as page_entry
from omiad.report.training import training_curves as training_curves
