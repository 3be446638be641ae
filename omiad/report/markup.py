"""One table in three markups, whatever characters its names hold."""

import csv
import io
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

_MARKDOWN = str.maketrans({char: f"\\{char}" for char in "\\`*_|<[~&$"})

_LATEX = str.maketrans(
    {
        **{char: f"\\{char}" for char in "_&%#${}"},
        # A [ or * after the \\ of the row before would be an option of that \\.
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


@dataclass(frozen=True)
class Grid:
    """A table as text, before any markup.

    Attributes:
        title: What it shows and how that was measured, in one paragraph.
        header: Names of the columns.
        rows: The cells.
        num_labels: Leading columns that hold names.
        rules: Rows that a line stands above.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_labels: int = 1
    rules: Collection[int] = ()


def as_csv(grid: Grid) -> str:
    """Write header and cells as CSV, without the title."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([grid.header, *grid.rows])
    return text.getvalue()


def as_markdown(grid: Grid) -> str:
    """Write a table of GitHub's Markdown below its title."""
    rows = [[cell.translate(_MARKDOWN) for cell in row] for row in (grid.header, *grid.rows)]
    rows.insert(1, ["---"] * len(grid.header))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([grid.title.translate(_MARKDOWN), "", *lines, ""])


def as_latex(grid: Grid) -> str:
    """Write a tabular of booktabs below a comment with its title."""
    columns = "l" * grid.num_labels + "c" * (len(grid.header) - grid.num_labels)
    header, *rows = (
        " & ".join(_latex(cell) for cell in row) + r" \\" for row in (grid.header, *grid.rows)
    )
    lines = [f"% {grid.title}", r"% \usepackage{booktabs,amssymb}"]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", header, r"\midrule"]
    for number, row in enumerate(rows):
        lines += [r"\midrule", row] if number in grid.rules else [row]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex(cell: str) -> str:
    return re.sub("-(?=-)", "-{}", cell.translate(_LATEX))  # -- would become a dash


def printable(name: str) -> str:
    """Return a name without line breaks and what else no file of text can hold."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(name.split()))
