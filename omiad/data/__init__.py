"""Data: indexes of data sets, images, and the batches of a run."""

from omiad.data.datamodule import FeatureDataModule
from omiad.data.images import IMAGE_SUFFIXES, ImageDataset, read_image, read_mask

__all__ = ["IMAGE_SUFFIXES", "FeatureDataModule", "ImageDataset", "read_image", "read_mask"]
