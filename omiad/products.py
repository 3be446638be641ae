"""The products that a detector knows: which one a photograph shows, and how normal its score is."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from omiad.buffers import FreeRows
from omiad.conformal import check_supported, p_values, smallest_rate, threshold
from omiad.errors import InputError

SHRINKAGE = 0.5
"""Share of the covariance's diagonal that replaces the covariance, which few photographs give."""

TOLERANCE = 3.0
"""A photograph is of a known product within so many times the median distance of its normals."""

FOLDS = 4
"""Parts that normal photographs are divided into; each part is measured by the other three."""

UNKNOWN = -1
"""Number of the product of a photograph that shows none of those that the model knows."""

LOWEST_RATE = 0.01
"""False-alarm rate where none is asked for and the photographs support it."""


class NormalScores(NamedTuple):
    """Scores of normal photographs of one product that the detector was not fitted to.

    Attributes:
        image: Image scores (n,).
        peak: Highest value of each anomaly map (n,).
    """

    image: Tensor
    peak: Tensor


class Threshold(NamedTuple):
    """The image score, and the value of the anomaly map, above which something is a defect."""

    image: float
    peak: float


def check_numbers(num_normal: Mapping[str, int], rate: float | None = None) -> None:
    """Refuse products with too few normal photographs.

    Args:
        num_normal: How many photographs set the threshold of each product.
        rate: False-alarm rate that is asked for; None for the lowest that each product supports.

    Raises:
        InputError: If a product has fewer than `FOLDS` photographs, or too few for the rate, or if
            the rate is out of range.
    """
    for name, number in num_normal.items():
        if number < FOLDS:
            raise InputError(
                f"'{name}' has too few normal photographs ({number}); a threshold needs at least "
                f"{FOLDS}, and 99 for a false-alarm rate of 1 %. Take more photographs."
            )
        if rate is not None:
            check_supported(number, rate, product=name)


class Products(FreeRows):
    """Products with the centre of their normal photographs and the scores of these photographs.

    A photograph is described by the mean of its features over all positions. The nearest product is
    the one at the smallest Mahalanobis distance from its centre, with one covariance for all
    products, half of which is replaced by its diagonal.

    Args:
        num_channels: Number of feature channels C.

    Attributes:
        names: Names of the P products; none before `fit`.
        centres: Mean description of each product (P, C).
        whitening: A factor of the inverse covariance (C, C).
        limits: Distance from each centre within which a photograph shows that product (P,).
        images: Image scores of normal photographs, product by product (N,).
        peaks: Highest value of the map of each of them (N,).
        counts: Number of these photographs of each product (P,), int64; 0 without thresholds.
    """

    centres: Tensor
    whitening: Tensor
    limits: Tensor
    images: Tensor
    peaks: Tensor
    counts: Tensor

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.names: list[str] = []
        self.register_buffer("centres", torch.empty(0, num_channels))
        self.register_buffer("whitening", torch.eye(num_channels))
        self.register_buffer("limits", torch.empty(0))
        self.register_buffer("images", torch.empty(0))
        self.register_buffer("peaks", torch.empty(0))
        self.register_buffer("counts", torch.empty(0, dtype=torch.int64))

    def fit(self, described: Mapping[str, Tensor], scores: Mapping[str, NormalScores]) -> None:
        """Replace all products.

        Args:
            described: Descriptions (n, C) of normal photographs of each product.
            scores: Scores of normal photographs of each product.

        Raises:
            InputError: If a product has fewer than `FOLDS` photographs.
        """
        check_numbers({name: len(points) for name, points in described.items()})
        groups = list(described.values())
        centres, self.whitening = fit_centres(groups)
        self._set(list(described), centres, TOLERANCE * _typical_distances(groups), scores)

    def update(self, described: Mapping[str, Tensor], scores: Mapping[str, NormalScores]) -> None:
        """Add products, or replace those of the same names; the others stay as they are.

        Distances are measured with the covariance that `fit` found, so that no other product
        changes. Arguments and errors are those of `fit`.
        """
        check_numbers({name: len(points) for name, points in described.items()})
        groups = list(described.values())
        limits = TOLERANCE * _typical_distances(groups, self.whitening)
        kept = {name: self.normal(i) for i, name in enumerate(self.names)}
        rows = [i for i, name in enumerate(self.names) if name not in described]
        names = [self.names[i] for i in rows] + list(described)
        centres = torch.stack([points.mean(0) for points in groups])
        self._set(
            names,
            torch.cat([self.centres[rows], centres]),
            torch.cat([self.limits[rows], limits]),
            {**kept, **scores},
        )

    @classmethod
    def judging(cls, scores: Mapping[str, NormalScores]) -> "Products":
        """Return products that judge scores, and recognise no photograph."""
        products = cls(1)
        if scores:
            nowhere = torch.zeros(len(scores))
            products._set(list(scores), nowhere[:, None], nowhere, scores)
        return products

    def _set(
        self,
        names: list[str],
        centres: Tensor,
        limits: Tensor,
        scores: Mapping[str, NormalScores],
    ) -> None:
        self.names, self.centres, self.limits = names, centres, limits
        self.images = torch.cat([scores[name].image for name in names])
        self.peaks = torch.cat([scores[name].peak for name in names])
        counts = [len(scores[name].image) for name in names]
        self.counts = torch.tensor(counts, device=self.images.device)

    def recognise(self, described: Tensor) -> Tensor:
        """Return the number of the product that each photograph shows, by its description (B, C).

        The numbers are (B,), int64; `UNKNOWN` means that the photograph is near no product.
        """
        if not self.names:
            return torch.full_like(described[:, 0], UNKNOWN, dtype=torch.int64)
        distance, product = distances_from(described, self.centres, self.whitening).min(1)
        return torch.where(distance <= self.limits[product], product, UNKNOWN)

    def p_values(self, scores: Tensor, shown: Tensor) -> Tensor:
        """Return the p-values (B,) of image scores of photographs that show products (B,)."""
        images, counts = self.images.to(scores.device), self.counts.to(scores.device)
        places = torch.arange(images.shape[0], device=scores.device)
        owner = (places[:, None] >= counts.cumsum(0)).sum(1)
        return p_values(scores, images.where(owner == shown[:, None], -torch.inf))

    def rates(self, asked: float | None = None) -> list[float]:
        """Return the false-alarm rate of each product.

        It is the rate that is asked for. Otherwise it is 1 %, or the lowest rate that the product's
        photographs support.
        """
        if asked is not None:
            return [asked] * len(self.names)
        return [max(LOWEST_RATE, smallest_rate(n)) for n in self.counts.tolist()]

    def thresholds(self, asked: float | None = None) -> list[Threshold]:
        """Return the thresholds of each product at its false-alarm rate (`rates`).

        Raises:
            InputError: If a rate is asked for that a product's photographs do not support.
        """
        return [self.threshold(number, asked) for number in range(len(self.names))]

    def threshold(self, product: int, asked: float | None = None) -> Threshold:
        """Return the thresholds of one product, by its number; see `thresholds`."""
        rate, scores = self.rates(asked)[product], self.normal(product)
        check_supported(len(scores.image), rate, product=self.names[product])
        return Threshold(*(threshold(each, rate) for each in scores))

    def forget_scores(self) -> None:
        """Forget the scores of normal photographs, and so all thresholds; keep the recognition."""
        self.images, self.peaks = self.images[:0], self.peaks[:0]
        self.counts = torch.zeros_like(self.counts)

    def normal(self, product: int) -> NormalScores:
        """Return the scores of the normal photographs of a product, by its number."""
        start = int(self.counts[:product].sum())
        part = slice(start, start + int(self.counts[product]))
        return NormalScores(self.images[part], self.peaks[part])

    def check(self, source: str, *, added: Sequence[str] = ()) -> None:
        """Refuse entries that contradict each other, in the checkpoint called `source`.

        `added` are the names of the products that have a memory of their own.
        """
        num, of_each = len(self.names), self.counts
        rows = {len(self.centres), len(self.limits), len(of_each)}
        if rows != {num} or bool((of_each < 0).any()) or len(set(self.names)) < num:
            raise InputError(
                f"{source} names {num} products, but describes {len(of_each)}. The file is damaged "
                f"or was changed; give another checkpoint."
            )
        if len(set(added)) < len(added) or not set(added) <= set(self.names):
            raise InputError(
                f"{source} remembers patches of a product twice, or of one that it does not know. "
                f"The file is damaged or was changed; give another checkpoint."
            )
        if {len(self.images), len(self.peaks)} != {int(of_each.sum())}:
            raise InputError(
                f"{source} holds {len(self.images)} scores of normal photographs where its "
                f"products have {int(of_each.sum())}. The file is damaged or was changed; give "
                f"another checkpoint."
            )

    def number(self, name: str) -> int:
        """Return the number of a product.

        Raises:
            InputError: If the detector does not know the product.
        """
        if name not in self.names:
            raise InputError(
                f"The model knows no product '{name}'. It knows {', '.join(self.names) or 'none'}."
            )
        return self.names.index(name)


def description(features: Tensor) -> Tensor:
    """Return what a photograph is recognised by: its mean features (B, C) of maps (B, C, h, w)."""
    return features.float().mean((2, 3))


def fit_centres(groups: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return centres (P, C) and whitening (C, C) of the descriptions (n, C) of each product."""
    centres = torch.stack([points.mean(0) for points in groups])
    residual = torch.cat([x - c for x, c in zip(groups, centres, strict=True)]).double()
    covariance = residual.T @ residual / len(residual)
    variance = covariance.diagonal()
    ridge = 1e-3 * variance.mean() + torch.finfo(torch.float32).tiny  # a channel may be constant
    shrunk = (1 - SHRINKAGE) * covariance + torch.diag(SHRINKAGE * variance + ridge)
    return centres, torch.linalg.cholesky(torch.linalg.inv(shrunk)).to(centres.dtype)


def _typical_distances(groups: Sequence[Tensor], whitening: Tensor | None = None) -> Tensor:
    """Return the median distance (P,) of each product's photographs from the centre of others.

    Without a whitening, that of the other photographs measures the distance of each.
    """
    distances: list[list[Tensor]] = [[] for _ in groups]
    for fold in range(FOLDS):
        inside = [torch.arange(len(points)) % FOLDS == fold for points in groups]
        others = [points[~chosen] for points, chosen in zip(groups, inside, strict=True)]
        centres, own = fit_centres(others)
        for number, (points, chosen) in enumerate(zip(groups, inside, strict=True)):
            found = distances_from(points[chosen], centres, own if whitening is None else whitening)
            distances[number].append(found[:, number])
    return torch.stack([torch.cat(parts).median() for parts in distances])


def distances_from(described: Tensor, centres: Tensor, whitening: Tensor) -> Tensor:
    """Return the Mahalanobis distance (B, P) of each description from each centre."""
    with torch.autocast(described.device.type, enabled=False):  # half precision is too coarse
        whitened: Tensor = (described[:, None] - centres) @ whitening
    distances: Tensor = torch.linalg.vector_norm(whitened, dim=2)
    return distances
