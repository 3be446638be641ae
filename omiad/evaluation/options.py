"""What a user may choose about an evaluation; `omiad test` and `omiad evaluate` share it."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from omiad.errors import InputError
from omiad.metrics.pixels import TOLERANCE
from omiad.protocols import PROTOCOLS, Protocol
from omiad.report import NUM_KEPT


@dataclass(kw_only=True, eq=False)
class EvaluationOptions:
    """How predictions are measured.

    Attributes:
        protocol: How maps, masks and image scores are prepared: uniad, ader or dinomaly. By default
            uniad; a model is then tested at its own image size with its own window of the image
            score.
        image_size: Side of images, maps and masks in pixels, without a crop, instead of the
            protocol's. To test a model, it must be the model's.
        blur_sigma: Gaussian blur of the maps in pixels, instead of the protocol's.
        pool_size: Side of the window whose highest mean is the image score, instead of the
            protocol's; 1 is the maximum.
        top_fraction: Share of pixels whose mean is the image score, instead of the protocol's.
        estimator: exact, or source: pixel figures as the protocol's source estimates them, to
            reproduce a published number.
        tolerance: Largest error of a pixel figure, as a fraction of 1, that needs no second pass.
        num_kept: Images of all categories whose maps are kept, small, for `omiad report`: false
            alarms, misses and a spread; 0 keeps none.
    """

    protocol: str | None = None
    image_size: int | None = None
    blur_sigma: float | None = None
    pool_size: int | None = None
    top_fraction: float | None = None
    estimator: Literal["exact", "source"] = "exact"
    tolerance: float = TOLERANCE
    num_kept: int = NUM_KEPT

    def __post_init__(self) -> None:
        """Refuse an unknown protocol and impossible steps."""
        self.build_protocol(pool_size=1)

    def build_protocol(
        self, *, image_size: int | None = None, pool_size: int | None = None
    ) -> Protocol:
        """Return the protocol with the steps that were chosen.

        The size and the window are those of a model; they are used if no others were chosen.
        """
        name = self.protocol or "uniad"
        if name not in PROTOCOLS:
            raise InputError(f"No protocol '{name}'. Choose one of {', '.join(PROTOCOLS)}.")
        if self.pool_size is not None and self.top_fraction:
            raise InputError(
                f"Both pool_size {self.pool_size} and top_fraction {self.top_fraction:g} would set "
                f"the image score. Give one of --pool_size and --top_fraction."
            )
        changes: dict[str, Any] = {
            "blur_sigma": self.blur_sigma,
            "pool_size": pool_size if self.takes_model_window else self.pool_size,
            "top_fraction": self.top_fraction if self.pool_size is None else 0.0,
        }
        changes = {key: value for key, value in changes.items() if value is not None}
        size = image_size if self.protocol is None and self.image_size is None else self.image_size
        if size is not None:
            changes |= {"input_size": size, "map_size": size, "crop": None}
        return dataclasses.replace(PROTOCOLS[name], **changes)

    @property
    def takes_model_window(self) -> bool:
        """Whether the image score of a model is its own."""
        return self.protocol is None and self.pool_size is None and self.top_fraction is None
