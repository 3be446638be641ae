"""Exported models: their files, and the detector that runs them without the network's own code."""

from omiad.runtimes.detector import ExportedDetector, device_for, is_export
from omiad.runtimes.record import EXPORT_FORMAT, ExportPrecision, ExportRecord, ProductRecord
from omiad.runtimes.sessions import NAMES, SESSIONS, Outputs, Session, required

__all__ = [
    "EXPORT_FORMAT",
    "NAMES",
    "SESSIONS",
    "ExportPrecision",
    "ExportRecord",
    "ExportedDetector",
    "Outputs",
    "ProductRecord",
    "Session",
    "device_for",
    "is_export",
    "required",
]
