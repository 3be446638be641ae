"""Backbone features: extraction, the cache on disk, normalisation."""

from omiad.features.cache import FeatureCache, FeatureStatistics
from omiad.features.extractor import FeatureExtractor
from omiad.features.normalization import FeatureNorm, FeatureNormalizer

__all__ = [
    "FeatureCache",
    "FeatureExtractor",
    "FeatureNorm",
    "FeatureNormalizer",
    "FeatureStatistics",
]
