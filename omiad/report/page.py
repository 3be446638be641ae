"""Pages that need no network: styles, scripts and data are all in one file."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from omiad.errors import InputError
from omiad.files import write_whole
from omiad.report.pictures import heat
from omiad.version import __version__

_POLICY = (
    "default-src 'none'; {allowed}; style-src 'unsafe-inline'; "
    "script-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'"
)
"""Allows the page's own script and pictures, and nothing else, should a name become markup."""

_PICTURES = "img-src data: file: 'self'"
"""Pictures of a page that is a file."""


def free_page(folder: Path, *, option: str = "--out") -> Path:
    """Return the path of a page that does not exist yet."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"'{folder}' is a file. Give {option} a folder.")
    path = folder / "index.html"
    if path.exists():
        raise InputError(f"'{folder}' already holds a page. Choose another {option}.")
    return path


def write_page(path: Path, *, title: str, sections: Mapping[str, str], **content: Any) -> None:
    """Fill the templates with `render_page` and write the page."""
    text = render_page(
        title=title,
        sections=sections,
        scripts=("page.js", "gallery.js"),
        allowed=_PICTURES,
        footer="This page fetches nothing.",
        **content,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    # Names of files need not be valid text.
    write_whole(path, text.encode("utf-8", errors="backslashreplace"))


def render_page(
    *,
    title: str,
    sections: Mapping[str, str],
    scripts: Sequence[str],
    allowed: str,
    footer: str,
    **content: Any,
) -> str:
    """Fill the templates; every text of the content is escaped.

    Args:
        title: Title of the page.
        sections: Headings, by the name of each section in addresses and of its template.
        scripts: Names of the page's scripts below `assets`.
        allowed: What the page may load, as directives of a content security policy.
        footer: A sentence at the end.
        content: What the templates of the sections need.
    """
    templates = Environment(
        loader=PackageLoader("omiad.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    assets = files("omiad.report") / "assets"
    style, *parts = ((assets / name).read_text(encoding="utf-8") for name in ("page.css", *scripts))
    script = "".join(parts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return templates.get_template("page.html.j2").render(
        title=title,
        sections=sections,
        policy=_POLICY.format(hash=digest, allowed=allowed),
        style=Markup(style),
        script=Markup(script),
        heat_stops=heat(np.linspace(0, 1, 11)[None])[0].tolist(),
        version=__version__,
        footer=footer,
        **content,
    )
