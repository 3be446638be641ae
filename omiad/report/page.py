"""A page that stands alone: everything it needs is in it, and nothing is fetched."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from omiad.report.colors import heat_stops
from omiad.version import __version__

_POLICY = (
    "default-src 'none'; img-src data: file: 'self'; style-src 'unsafe-inline'; "
    "script-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'"
)
"""Forbids other scripts and whatever lies elsewhere, should a name ever become markup."""

# The brighter a map, the more it hides of its photograph: 1 - (1 - luminance)^3, since the middle
# colours are rather dark. A mask could not: browsers refuse pictures of a folder as one.
_SHAPES = (
    '<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>'
    '<pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse">'
    '<path d="M-1 6L6 -1M-1 1L1 -1M4 6L6 4"/></pattern>'
    '<linearGradient id="heat">{stops}</linearGradient>'
    '<filter id="veil" x="0" y="0" width="1" height="1" color-interpolation-filters="sRGB">'
    '<feColorMatrix values="1 0 0 0 0 0 1 0 0 0 0 0 1 0 0 .2126 .7152 .0722 0 0"/>'
    '<feComponentTransfer><feFuncA type="table" tableValues="0 .578 .875 .984 1"/>'
    "</feComponentTransfer></filter></defs></svg>"
)


class Section(NamedTuple):
    """A part of a page.

    Attributes:
        anchor: Its name in addresses.
        title: Its heading.
        content: HTML.
    """

    anchor: str
    title: str
    content: str


def write_page(
    path: Path,
    *,
    title: str,
    lead: str,
    sections: Sequence[Section],
    gallery: Mapping[str, Any] | None,
) -> None:
    """Write a page.

    Args:
        path: The file.
        title: Its heading, plain text.
        lead: What follows it, HTML.
        sections: Its parts.
        gallery: What the script draws, as plain data; None without pictures.
    """
    style, *scripts = (_asset(name) for name in ("page.css", "page.js", "gallery.js"))
    script = "".join(scripts)
    links = "".join(f'<li><a href="#{s.anchor}">{s.title}</a></li>' for s in sections)
    parts = "".join(
        f'<section id="{s.anchor}" aria-labelledby="{s.anchor}-title">'
        f'<h2 id="{s.anchor}-title">{s.title}</h2>{s.content}</section>'
        for s in sections
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY.format(hash=_hash(script))}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="omiad {__version__}">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
{_SHAPES.format(stops=_gradient())}
<header class="top"><h1>{escape(title)}</h1>{lead}</header>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<main id="main">{parts}</main>
<footer>Made by omiad {__version__}. This page fetches nothing.</footer>
{"" if gallery is None else _viewer(gallery)}
<script>{script}</script>
</body>
</html>
""",
        encoding="utf-8",
        errors="backslashreplace",  # names of files need not be text
    )


def gallery_markup(about: str, scales: Sequence[tuple[str, tuple[float, float] | None]]) -> str:
    """Return the frame that the script fills with pictures.

    Args:
        about: What is shown and what is not, HTML.
        scales: Name of each run, and the scores that are drawn darkest and brightest.
    """
    legends = "".join(
        _scale(number, name, scale) for number, (name, scale) in enumerate(scales) if scale
    )
    selects = "".join(
        f'<label><span>{text}</span><select name="{name}">{options}</select></label>'
        for name, text, options in (
            ("run", "scores and maps of", ""),
            ("category", "category", ""),
            ("defect", "defect", ""),
            ("outcome", "outcome", ""),
            ("order", "order", _ORDERS),
        )
    )
    return (
        f"{about}"
        '<noscript><p class="warning">The pictures need JavaScript, which is turned off; tables '
        "and charts do not.</p></noscript>"
        f'<form class="controls" id="filters" hidden aria-label="Filter the images">{selects}'
        '<label><input type="checkbox" name="truth" checked> outline of the ground truth</label>'
        '<label><input type="checkbox" name="overlay"> map over the photograph</label></form>'
        f'{legends}<p id="count" class="soft" aria-live="polite"></p>'
        '<ul id="gallery"></ul>'
        '<p><button type="button" class="plain" id="more" hidden></button></p>'
    )


_ORDERS = "".join(
    f'<option value="{value}">{text}</option>'
    for value, text in (
        ("mistakes", "worst mistakes first"),
        ("alarms", "worst false alarms first"),
        ("misses", "worst misses first"),
        ("score", "highest score first"),
        ("name", "by name"),
    )
)


def _scale(number: int, name: str, scale: tuple[float, float]) -> str:
    low, high = scale
    middle = (low + high) / 2
    return (
        f'<figure class="scale" data-run="{number}"><figcaption class="soft">pixel score of '
        f"{escape(name)}, one scale for all images</figcaption>"
        '<svg viewBox="0 0 100 4" preserveAspectRatio="none" role="img" aria-label="colour scale '
        f'from {low:.3g}, dark, to {high:.3g}, bright"><rect width="100" height="4" '
        'fill="url(#heat)"/></svg>'
        f'<div class="ends"><span>{low:.3g} or less</span><span>{middle:.3g}</span>'
        f"<span>{high:.3g} or more</span></div></figure>"
    )


def _viewer(gallery: Mapping[str, Any]) -> str:
    # No name can end the script: "<" stands in it as an escape.
    text = json.dumps(gallery, separators=(",", ":")).replace("<", "\\u003c")
    return (
        '<dialog id="viewer" aria-labelledby="viewer-title"><header>'
        '<div id="seen" aria-live="polite" aria-atomic="true"><h3 id="viewer-title"></h3>'
        '<span id="position" class="soft"></span></div>'
        '<span><button type="button" class="plain" id="previous">← previous</button> '
        '<button type="button" class="plain" id="next">next →</button> '
        '<button type="button" class="plain" id="close" autofocus>close (Esc)</button></span>'
        "</header>"
        '<div class="panes" id="panes"></div></dialog>'
        f'<script type="application/json" id="gallery-data">{text}</script>'
    )


def _gradient() -> str:
    return "".join(
        f'<stop offset="{offset:.2f}" stop-color="#{red:02x}{green:02x}{blue:02x}"/>'
        for offset, (red, green, blue) in heat_stops()
    )


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def _asset(name: str) -> str:
    return files("omiad.report").joinpath("assets", name).read_text(encoding="utf-8")
