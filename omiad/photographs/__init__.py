"""Photographs as the model sees them: opened, turned upright, in 8-bit RGB, and resized.

A name is imported when it is first used, so that `to_canvas` works without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omiad.photographs.arrays import Color as Color
    from omiad.photographs.canvas import to_canvas as to_canvas
    from omiad.photographs.conversion import WHITE_LEVEL as WHITE_LEVEL
    from omiad.photographs.conversion import to_rgb as to_rgb
    from omiad.photographs.given import Photo as Photo
    from omiad.photographs.given import Reader as Reader
    from omiad.photographs.given import is_one as is_one
    from omiad.photographs.opening import IMAGE_SUFFIXES as IMAGE_SUFFIXES
    from omiad.photographs.opening import opened_content as opened_content
    from omiad.photographs.reading import load_image as load_image
    from omiad.photographs.reading import read_image as read_image
    from omiad.photographs.reading import read_photograph as read_photograph
    from omiad.photographs.reading import resized as resized

_MODULES = {
    "IMAGE_SUFFIXES": "opening",
    "WHITE_LEVEL": "conversion",
    "Color": "arrays",
    "Photo": "given",
    "Reader": "given",
    "is_one": "given",
    "load_image": "reading",
    "opened_content": "opening",
    "read_image": "reading",
    "read_photograph": "reading",
    "resized": "reading",
    "to_canvas": "canvas",
    "to_rgb": "conversion",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """Import a name from its file (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'omiad.photographs' has no attribute '{name}'")
    return getattr(import_module(f"omiad.photographs.{_MODULES[name]}"), name)
