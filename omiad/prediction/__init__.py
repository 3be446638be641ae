"""Prediction: photographs to a table of scores, overlays and a page."""

from omiad.prediction.predict import predict as predict
