"""A table as CSV, Markdown or LaTeX, whatever characters its names hold."""

import csv
import io
import re
from collections.abc import Collection, Sequence

from jinja2 import Environment, PackageLoader

MARKUPS = (".csv", ".md", ".tex")
"""The file endings of `render`."""

_TEMPLATES = Environment(
    loader=PackageLoader("omiad.paper"),
    variable_start_string="<<",  # braces belong to LaTeX
    variable_end_string=">>",
    line_statement_prefix="%%",
    keep_trailing_newline=True,
)

_MARKDOWN = str.maketrans({char: f"\\{char}" for char in "\\`*_|<[~&$"})
_LATEX = str.maketrans(
    {
        **{char: f"\\{char}" for char in "_&%#${}"},
        # After the \\ of the previous row, [ or * would be an option of that \\.
        **{char: f"{{{char}}}" for char in "[*"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "✓": r"$\checkmark$",
    }
)


def render(
    markup: str,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    num_labels: int = 1,
    rules: Collection[int] = (),
) -> str:
    """Write a table as CSV without its title, as GitHub's Markdown, or as a LaTeX tabular.

    Args:
        markup: One of `MARKUPS`.
        title: One paragraph above the table.
        header: Names of the columns.
        rows: The cells.
        num_labels: How many leading columns LaTeX aligns to the left.
        rules: Indices of the rows above which LaTeX draws a line.
    """
    if markup == ".csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *rows])
        return text.getvalue()
    escape = _latex if markup == ".tex" else _markdown
    header, *rows = ([escape(cell) for cell in row] for row in (header, *rows))
    return _TEMPLATES.get_template(f"table{markup}.jinja").render(
        # LaTeX has the title in a comment, where nothing is escaped.
        title=title if markup == ".tex" else escape(title),
        header=header,
        rows=rows,
        alignment="l" * num_labels + "c" * (len(header) - num_labels),
        rules=rules,
    )


def printable(name: str) -> str:
    """Return a name in one line, with ? for each character that text files cannot hold."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(name.split()))


def _markdown(cell: str) -> str:
    return cell.translate(_MARKDOWN)


def _latex(cell: str) -> str:
    return re.sub("-(?=-)", "-{}", cell.translate(_LATEX))  # -- would become a dash
