"""Export: a model as one graph, compared with the model before it is written."""

from omiad.export.command import export as export
