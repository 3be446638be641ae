"""Prediction: photographs to a table of scores, overlays and a page."""

from omiad.prediction.command import predict as predict
