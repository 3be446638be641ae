"""What the thresholds of a model decide about the images of a test."""

from collections.abc import Mapping

from omiad.conformal import smallest_rate, threshold
from omiad.metrics.images import Images
from omiad.products import Products
from omiad.record import Decided

RATES = (0.01, 0.05, 0.1)
"""False-alarm rates that are reported besides a product's own, where its photographs allow."""


def decisions(
    products: Products, images: Mapping[str, Images], asked: float | None
) -> dict[str, list[Decided]]:
    """Count false alarms and found defects of each product, at its own rate and at `RATES`.

    Args:
        products: The products that the model knows.
        images: Scores and labels of the test images, by their category, whose threshold decides.
        asked: The rate that the model was calibrated for, see `Products.rates`.
    """
    found = {}
    for number, own in enumerate(products.rates(asked)):
        name, normal = products.names[number], products.normal(number).image
        if name in images and len(normal):
            lowest = smallest_rate(len(normal))
            rates = [own, *(rate for rate in RATES if lowest <= rate != own)]
            limits = [(rate, threshold(normal, rate)) for rate in rates]
            found[name] = [_decided(images[name], rate, limit) for rate, limit in limits]
    return found


def _decided(images: Images, rate: float, limit: float) -> Decided:
    is_above, is_anomalous = images.score > limit, images.is_anomalous
    return {
        "rate": rate,
        "threshold": limit,
        "false_alarms": int((is_above & ~is_anomalous).sum()),
        "num_good": int((~is_anomalous).sum()),
        "found": int((is_above & is_anomalous).sum()),
        "num_defective": int(is_anomalous.sum()),
    }
