"""Layouts of data sets: each module turns a folder into a list of samples, opening no pixels."""

from omiad.data.layouts.mvtec import index as index_mvtec

__all__ = ["index_mvtec"]
