"""What the service says about a photograph, as JSON; this is the schema of the OpenAPI page."""

import base64

from pydantic import BaseModel, Field

from omiad.inspection import Inspection, Region


class Area(BaseModel):
    """A defect, in pixels of the photograph; right and bottom lie outside."""

    left: int
    top: int
    right: int
    bottom: int
    area: int = Field(description="Number of pixels.")
    peak: float = Field(description="Highest value of the anomaly map in the region.")


class MapPicture(BaseModel):
    """An anomaly map at the model's size, as a PNG of 16-bit grayscale."""

    png: str = Field(description="The PNG in base64.")
    low: float = Field(description="Pixel score of the level 0.")
    high: float = Field(description="Pixel score of the level 65535.")


class Answer(BaseModel):
    """What was found in a photograph, as in a row of `omiad predict`."""

    name: str = Field(description="The name of the file as it was sent.")
    decision: str = Field(description="ok, defect, unknown product, or unreadable.")
    product: str | None = Field(default=None, description="null if the product is unknown.")
    score: float | None = Field(default=None, description="Higher is more anomalous.")
    p_value: float | None = Field(
        default=None, description="Share of the product's normal photographs that score as high."
    )
    threshold: float | None = Field(
        default=None, description="Score above which a photograph of the product shows a defect."
    )
    size: tuple[int, int] | None = Field(default=None, description="Width and height, upright.")
    regions: list[Area] = Field(default=[], description="Defects, the highest peak first.")
    map: MapPicture | None = Field(default=None, description="With `map=true` only.")
    overlay: str | None = Field(
        default=None, description="With `overlay=true` only: a PNG in base64."
    )
    error: str | None = Field(default=None, description="Why the photograph is unreadable.")


class Answers(BaseModel):
    """Answers in the order of the photographs."""

    photographs: list[Answer]


class Health(BaseModel):
    """A service that answers."""

    status: str
    version: str
    products: list[str]
    photographs_in_progress: int


class Refusal(BaseModel):
    """Why a request got no answer, in one sentence."""

    error: str


def answer_of(name: str, found: Inspection) -> Answer:
    """Return the answer for a photograph without its pictures."""
    return Answer(
        name=name,
        decision=found.decision,
        product=found.category,
        score=found.score,
        p_value=found.p_value,
        threshold=found.threshold.image if found.threshold else None,
        size=found.size,
        regions=[_area(region) for region in found.regions],
    )


def _area(region: Region) -> Area:
    left, top, right, bottom = region.box
    return Area(left=left, top=top, right=right, bottom=bottom, area=region.area, peak=region.peak)


def in_text(content: bytes) -> str:
    """Return bytes in base64."""
    return base64.b64encode(content).decode("ascii")
