"""The web page of the service: drop photographs on it, and look at decisions and overlays."""

from omiad.predictor import Predictor
from omiad.report import render_page

_ALLOWED = "connect-src 'self'; img-src data: blob:"
"""The page asks its own service, and shows pictures that it was sent or given."""


def service_page(predictor: Predictor, *, is_guarded: bool) -> str:
    """Return the page of a model, which asks for the token if the service is guarded."""
    names = predictor.products.names
    return render_page(
        title="Inspect photographs",
        sections={"service": "Photographs"},
        lead=f"The model knows {', '.join(names)}.",
        scripts=("page.js", "service.js"),
        allowed=_ALLOWED,
        footer="Photographs go to this service and to nowhere else.",
        is_guarded=is_guarded,
        scales=[(0, "the model", *predictor.map_range.tolist())],
    )
