"""A table as CSV, Markdown or LaTeX, whatever characters its names hold."""

import csv
import io
import re
from collections.abc import Sequence
from itertools import chain

from jinja2 import Environment, PackageLoader

from omiad.names import cell

MARKUPS = (".csv", ".md", ".tex")
"""The file endings of `render`."""

_MARKDOWN = str.maketrans({char: f"\\{char}" for char in "\\`*_|<[~&$"})
_LATEX = str.maketrans(
    {char: f"\\{char}" for char in "_&%#${}"}
    # After the \\ of the previous row, [ or * would be an option of that \\.
    | {char: f"{{{char}}}" for char in "[*"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    | {"±": r"$\pm$", "✓": r"$\checkmark$"}
)

TEMPLATES = Environment(
    loader=PackageLoader("omiad.paper"),
    variable_start_string="<<",  # braces belong to LaTeX
    variable_end_string=">>",
    line_statement_prefix="%%",
    keep_trailing_newline=True,
)
TEMPLATES.filters["markdown"] = lambda text: text.translate(_MARKDOWN)
# Two hyphens would become a dash.
TEMPLATES.filters["latex"] = lambda text: re.sub("-(?=-)", "-{}", text.translate(_LATEX))


def render(
    markup: str,
    title: str,
    header: Sequence[str],
    sections: Sequence[Sequence[Sequence[str]]],
    *,
    num_labels: int = 1,
) -> str:
    """Write sections of rows as CSV without the title, GitHub's Markdown, or a LaTeX tabular.

    LaTeX draws a line above each section, and aligns `num_labels` leading columns to the left.
    """
    header = [printable(text) for text in header]
    sections = [[[printable(text) for text in row] for row in rows] for rows in sections]
    if markup == ".csv":
        table = io.StringIO()
        named = [[*map(cell, row[:num_labels]), *row[num_labels:]] for row in chain(*sections)]
        csv.writer(table, lineterminator="\n").writerows([[*map(cell, header)], *named])
        return table.getvalue()
    return TEMPLATES.get_template(f"table{markup}.jinja").render(
        title=printable(title), header=header, sections=sections, num_labels=num_labels
    )


def printable(name: str) -> str:
    """Return a name in one line, with ? for each character that text files cannot hold."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(name.split()))
