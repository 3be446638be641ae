"""Scoring the maps of any method, and comparing results."""
