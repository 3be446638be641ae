"""Scoring the maps of any method, and comparing results."""

from omiad.evaluation.compare import compare as compare
from omiad.evaluation.evaluate import evaluate as evaluate
