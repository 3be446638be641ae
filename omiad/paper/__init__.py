"""The paper's tables, as printed and with our own figures.

`omiad sweep` and `omiad table` train the models of a table (runs.py); `omiad typeset`
takes any results. All three lay the figures out as the paper does (entries.py, layouts.py).
"""

from omiad.paper.printed import MEAN, categories_of, category_key, dataset_of, paper_table

__all__ = ["MEAN", "categories_of", "category_key", "dataset_of", "paper_table"]
