"""The maps that pictures are made of: a bounded number of each category, small, kept by a test.

What is kept needs neither model nor masks to be drawn; photographs stay where they are.
"""

from omiad.gallery.keeping import NUM_KEPT as NUM_KEPT
from omiad.gallery.keeping import Gallery as Gallery
from omiad.gallery.keeping import turns as turns
from omiad.gallery.store import KeptImages as KeptImages
from omiad.gallery.store import gallery_path as gallery_path
from omiad.gallery.store import read_gallery as read_gallery
from omiad.gallery.store import write_gallery as write_gallery

__all__ = [
    "NUM_KEPT",
    "Gallery",
    "KeptImages",
    "gallery_path",
    "read_gallery",
    "turns",
    "write_gallery",
]
