"""Photographs as the model sees them: opened, turned upright, in 8-bit RGB, and resized."""

from omiad.photographs.arrays import Color
from omiad.photographs.conversion import WHITE_LEVEL, to_rgb
from omiad.photographs.given import Photo, Reader, is_one
from omiad.photographs.opening import IMAGE_SUFFIXES, opened_content
from omiad.photographs.reading import load_image, read_image, read_photograph, resized

__all__ = [
    "IMAGE_SUFFIXES",
    "WHITE_LEVEL",
    "Color",
    "Photo",
    "Reader",
    "is_one",
    "load_image",
    "opened_content",
    "read_image",
    "read_photograph",
    "resized",
    "to_rgb",
]
