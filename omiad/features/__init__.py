"""Backbone features: extraction, the cache on disk, normalisation."""

from omiad.features.cache import FeatureCache
from omiad.features.extractor import FeatureExtractor
from omiad.features.normalization import FeatureNorm, FeatureNormalizer
from omiad.features.store import FeatureStatistics

__all__ = [
    "FeatureCache",
    "FeatureExtractor",
    "FeatureNorm",
    "FeatureNormalizer",
    "FeatureStatistics",
]
