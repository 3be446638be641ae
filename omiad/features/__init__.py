"""Backbone features: how they are extracted, cached on disk and normalised."""

from omiad.features.cache import FeatureCache, StreamedFeatures
from omiad.features.extractor import PRECISIONS, FeatureExtractor, weights_hash
from omiad.features.normalization import FeatureNorm, FeatureNormalizer, FeatureStatistics
from omiad.features.reading import Extraction

__all__ = [
    "PRECISIONS",
    "Extraction",
    "FeatureCache",
    "FeatureExtractor",
    "FeatureNorm",
    "FeatureNormalizer",
    "FeatureStatistics",
    "StreamedFeatures",
    "weights_hash",
]
