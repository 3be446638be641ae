"""What must hold after a command succeeded: figures are finite, and equal where they must be."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import torch


def finite_predictions(predictions: Path, count: int) -> str | None:
    """Say what is wrong with the table of `omiad predict`, which has so many rows."""
    with (predictions / "predictions.csv").open(newline="", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    if len(rows) != count:
        return f"{len(rows)} rows for {count} photographs"
    for row in rows:
        if not math.isfinite(float(row["score"])):
            return f"score {row['score']} without a word"
        if not (predictions / row["overlay"]).is_file():
            return "an overlay is missing"
    if len({row["overlay"] for row in rows}) != len(rows):
        return "two photographs share an overlay"
    return formula(rows)


def formula(rows: list[dict[str, str]]) -> str | None:
    """Say which cell of a table a spreadsheet would compute."""
    for row in rows:
        for text in row.values():
            if text and text[0] in "=+-@\t\r\n" and not _is_number(text):
                return f"a formula in a cell: {text[:30]!r}"
    return None


def finite_results(path: Path, known: dict[str, Any] | None = None) -> str | None:
    """Say what is wrong with the figures of a results.json; `known` are the right ones."""
    text = path.read_text()
    if not_finite := [word for word in ("NaN", "Infinity") if word in text]:
        return f"{not_finite[0]} in results.json without a word"
    figures = json.loads(text)["categories"]
    return None if known is None or figures == known else "other figures without a word"


def finite_weights(checkpoint: Path) -> str | None:
    """Say whether a fit wrote weights that are not numbers."""
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    strange = [n for n, v in state.items() if v.is_floating_point() and not v.isfinite().all()]
    return f"weights '{strange[0]}' are not finite without a word" if strange else None


def same_weights(checkpoint: Path, known: Path | None) -> str | None:
    """Say whether weights differ from the right ones in any bit."""
    if known is None:
        return "accepted as a teacher"
    ours, right = (torch.load(p, weights_only=True)["state_dict"] for p in (checkpoint, known))
    if ours.keys() != right.keys():
        return "weights of other names without a word"
    differ = [name for name, value in ours.items() if not torch.equal(value, right[name])]
    return f"other weights '{differ[0]}' without a word" if differ else None


def clean_page(path: Path, *, raw: str, plain: Path) -> str | None:
    """Say whether a page holds an attacker's markup, or more "NaN" than the page of plain runs."""
    text, usual = path.read_text(errors="surrogateescape"), plain.read_text()
    if raw in text:
        return "an attacker's markup in the page"
    for word in ("NaN", "Infinity"):
        if text.count(word) > usual.count(word):
            return f"{word} in the page without a word"
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
