"""Data: indexes of data sets, images, and the batches of a run."""

from omiad.data.datamodule import FeatureDataModule
from omiad.data.images import ImageDataset
from omiad.data.masks import read_mask
from omiad.photographs import IMAGE_SUFFIXES, read_image

__all__ = ["IMAGE_SUFFIXES", "FeatureDataModule", "ImageDataset", "read_image", "read_mask"]
