"""Backbone features: how they are extracted, cached on disk and normalised."""

from omiad.features.cache import FeatureCache, StreamedFeatures
from omiad.features.extractor import FeatureExtractor, fixed_batches, weights_hash
from omiad.features.normalization import FeatureNormalizer, FeatureStatistics
from omiad.features.reading import Extraction

__all__ = [
    "Extraction",
    "FeatureCache",
    "FeatureExtractor",
    "FeatureNormalizer",
    "FeatureStatistics",
    "StreamedFeatures",
    "fixed_batches",
    "weights_hash",
]
