"""Backbone features: extraction, the cache on disk, normalisation."""

from omiad.features.building import Build
from omiad.features.cache import CacheKey, FeatureCache, StreamedFeatures, compute_missing
from omiad.features.extractor import PRECISIONS, FeatureExtractor, weights_hash
from omiad.features.normalization import FeatureNorm, FeatureNormalizer
from omiad.features.store import FeatureStatistics

__all__ = [
    "PRECISIONS",
    "Build",
    "CacheKey",
    "FeatureCache",
    "FeatureExtractor",
    "FeatureNorm",
    "FeatureNormalizer",
    "FeatureStatistics",
    "StreamedFeatures",
    "compute_missing",
    "weights_hash",
]
