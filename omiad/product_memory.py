"""A small memory of normal patches for each product, searched for the product that is shown."""

from collections.abc import Sequence

import torch
from torch import Tensor

from omiad.buffers import FreeRows
from omiad.errors import InputError
from omiad.features.folding import Folding
from omiad.memory import coreset, soften
from omiad.products import distances_from, fit_centres

NUM_DIRECTIONS = 64
"""Principal directions in which patches are remembered; in the others a mean is remembered."""

WHITENING = 0.5
"""Power of the standard deviation that a direction is divided by; 1 is Mahalanobis' distance."""

RIDGE = 0.01
"""Share of the mean variance that is added to the variance of each direction."""

MOST_CANDIDATES = 40_000
"""Patches of a product, at most, that its memory chooses from."""

_BATCH_SIZE = 16


class ProductMemory(FreeRows):
    """Distance of each patch to what patches of its product normally look like.

    Two distances are multiplied, each to a power, so that neither needs a scale. For both, the
    principal directions of the normal patches of a product are divided by a power of their standard
    deviations: a direction counts more where normal patches vary less.

    Nearly all variety of the features is in the first `NUM_DIRECTIONS`, where the distance is that
    to the nearest of a few remembered patches. In the others normal patches hardly vary, and the
    distance is that to their mean. The squares of both are added. The distance of the residual is
    that from zero, which is all that a perfect reconstruction leaves.

    Features and residuals of each stage are softened first (`omiad.memory.soften`). A product with
    few photographs needs no rule of its own: a direction that its patches do not show has the
    variance of `RIDGE`.

    Args:
        folding: How features are folded.
        size: Patches remembered of each product; with 0 the residual alone counts.
        residual_weight: Power of the distance of the residual, in 0..1; that of the features is 1
            minus it.
        residual_whitening: The same as `WHITENING`, for the residual.

    Attributes:
        names: Names of the P products; none before `add`.
        centres: Mean features (C) of each of the first products, by which these are recognised.
        whitening: A factor of the inverse covariance of mean features (C, C).
        means: Mean patch of each product (P, 1, D).
        directions: Principal directions of each product as columns, divided (P, D, D).
        patches: Remembered patches in the first K directions (P, M, K).
        residuals: The same of the residual of each product (P, D, D).
    """

    centres: Tensor
    whitening: Tensor
    means: Tensor
    directions: Tensor
    patches: Tensor
    residuals: Tensor

    def __init__(
        self, folding: Folding, *, size: int, residual_weight: float, residual_whitening: float
    ) -> None:
        super().__init__()
        self.folding, self.size = folding, size
        self.residual_weight, self.residual_whitening = residual_weight, residual_whitening
        self.names: list[str] = []
        wide, deep = sum(folding.channels_per_stage), sum(folding.channels)
        self.num_directions = min(NUM_DIRECTIONS, deep)
        self.register_buffer("centres", torch.empty(0, wide))
        self.register_buffer("whitening", torch.eye(wide))
        self.register_buffer("means", torch.empty(0, 1, deep))
        self.register_buffer("directions", torch.empty(0, deep, deep))
        self.register_buffer("patches", torch.empty(0, size, self.num_directions))
        self.register_buffer("residuals", torch.empty(0, deep, deep))

    def forget(self) -> None:
        """Forget all products."""
        self.names = []
        for name in ("centres", "means", "directions", "patches", "residuals"):
            setattr(self, name, getattr(self, name)[:0])

    def check(self, source: str) -> None:
        """Refuse entries that contradict each other, in the checkpoint called `source`."""
        lengths = {len(x) for x in (self.means, self.directions, self.patches, self.residuals)}
        num, first = len(self.names), len(self.centres)
        if lengths != {num} or len({*self.names}) < num or not min(num, 1) <= first <= num:
            raise InputError(
                f"{source} names {len(self.names)} products whose patches it remembers, but has "
                f"patches of {max(lengths)}. The file is damaged or was changed; give another "
                f"checkpoint."
            )

    @torch.no_grad()
    def add(self, name: str, x_0: Tensor, residual: Tensor, *, seed: int) -> None:
        """Remember a product; the others stay as they are.

        Args:
            name: Name of the product.
            x_0: Normalised features (N, C, h, w) of its normal photographs.
            residual: Their features minus reconstruction (N, C, h, w).
            seed: Seed of the choice of patches.
        """
        generator = torch.Generator().manual_seed(seed)
        mean, directions, candidates = self._study(torch.split(x_0, _BATCH_SIZE), generator)
        points = (candidates - mean) @ directions[:, : self.num_directions]
        rows = coreset(points, self.size, generator)
        rows = rows[torch.arange(self.size, device=rows.device) % max(1, len(rows))]
        self.names.append(name)
        self.means = torch.cat([self.means, mean[None, None]])
        self.directions = torch.cat([self.directions, directions[None]])
        self.patches = torch.cat([self.patches, points[rows][None]])
        self.residuals = torch.cat([self.residuals, self._study_residual(residual)[None]])

    def _study(
        self, batches: Sequence[Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean (D,), divided directions (D, D) and some of the patches (M, D) of images."""
        deep = self.means.shape[2]
        total, squares = (torch.zeros(s, dtype=torch.float64) for s in ((deep,), (deep, deep)))
        num, num_images = 0, sum(map(len, batches))
        candidates = []
        for batch in batches:
            patches = self._patches(batch).mT.flatten(0, 1)
            exact = patches.double()
            total, squares = total.to(exact) + exact.sum(0), squares.to(exact) + exact.T @ exact
            num += len(exact)
            share = max(1, MOST_CANDIDATES * len(batch) // num_images)
            chosen = torch.randperm(len(patches), generator=generator)[:share]
            candidates.append(patches[chosen.to(patches.device)])
        mean = total / num
        directions = _divided_directions(squares / num - torch.outer(mean, mean), WHITENING)
        return mean.float(), directions, torch.cat(candidates)

    def recognise_by(self, described: Sequence[Tensor]) -> None:
        """Set how the products are told apart, by the mean features (n, C) of images of each.

        Products that are added later are taken where somebody says so, so that they change no score
        of a photograph that nobody knows.
        """
        self.centres, self.whitening = fit_centres(described)

    def rows(self, x_0: Tensor, shown: Tensor, names: Sequence[str]) -> Tensor:
        """Return which of the products each photograph shows (B,), by its row here.

        Args:
            x_0: Normalised features (B, C, h, w).
            shown: Number of the product among `names` (B,); where it is negative, nobody knows, and
                the nearest product is taken.
            names: Names of products.
        """
        nearest = distances_from(x_0.mean((2, 3)), self.centres, self.whitening).argmin(1)
        places = {name: row for row, name in enumerate(self.names)}
        own = torch.tensor([*(places.get(name, -1) for name in names), -1], device=x_0.device)
        row = own[torch.where(shown < 0, len(names), shown)]
        return torch.where(row < 0, nearest, row)

    def forward(self, x_0: Tensor, residual: Tensor, rows: Tensor) -> Tensor:
        """Return the distance (B, 1, fold h, fold w), float32, of each patch from normal ones.

        Args:
            x_0: Normalised features (B, C, h, w).
            residual: Features minus reconstruction (B, C, h, w).
            rows: Which product each photograph shows (B,); see `rows`.
        """
        if not self.names:
            raise InputError(
                "The memory of normal patches is empty. Score with a checkpoint that `omiad fit` "
                "wrote, or call omiad.calibration.calibrate with features of normal images first."
            )
        weight = self.residual_weight if self.size else 1.0
        factors = []
        with torch.autocast(x_0.device.type, enabled=False):  # half precision is too coarse
            if weight < 1:
                factors.append(self._from_features(x_0, rows) ** (1 - weight))
            if weight > 0:
                factors.append(self._from_residual(residual, rows) ** weight)
        return factors[0] * factors[1] if len(factors) > 1 else factors[0]

    def _from_features(self, x_0: Tensor, rows: Tensor) -> Tensor:
        """Return the distance (B, 1, fold h, fold w) of the features of each patch."""
        turned = self.directions[rows].mT @ (self._patches(x_0) - self.means[rows].mT)
        near, remembered = turned[:, : self.num_directions], self.patches[rows]
        # One product of matrices adds the squares of lengths, too, which saves two passes.
        lengths = remembered.square().sum(2, keepdim=True)
        beside = torch.cat([near, torch.ones_like(near[:, :1])], 1)
        nearest = (torch.cat([-2 * remembered, lengths], 2) @ beside).amin(1)
        square = nearest + turned.square().sum(1)
        height, width = self.folding.fold * x_0.shape[2], self.folding.fold * x_0.shape[3]
        return square.clamp(min=0).sqrt().view(-1, 1, height, width)

    def _from_residual(self, residual: Tensor, rows: Tensor) -> Tensor:
        """Return the distance (B, 1, fold h, fold w) of the residual of each patch."""
        turned = self._patches(residual)
        if self.residual_whitening > 0:  # else a rotation, which keeps the norm
            turned = self.residuals[rows].mT @ turned
        height, width = self.folding.fold * residual.shape[2], self.folding.fold * residual.shape[3]
        return turned.square().mean(1).sqrt().view(-1, 1, height, width)

    def _study_residual(self, residual: Tensor) -> Tensor:
        """Return the divided directions (D, D) of residuals (N, C, h, w)."""
        parts = torch.split(residual, _BATCH_SIZE)
        exact = [self._patches(part).mT.flatten(0, 1).double() for part in parts]
        moment = torch.stack([x.T @ x for x in exact]).sum(0) / sum(map(len, exact))
        return _divided_directions(moment, self.residual_whitening)

    def _patches(self, x: Tensor) -> Tensor:
        """Return the softened patches (B, D, cells) of features or residuals on the fine grid."""
        stages = self.folding.unfolded(x.float())
        return torch.cat([soften(stage.flatten(2), dim=1) for stage in stages], 1)


def _divided_directions(moment: Tensor, whitening: float) -> Tensor:
    """Return principal directions as columns (D, D), divided, of a second moment (D, D)."""
    variance, directions = torch.linalg.eigh(moment)
    variance, directions = variance.clamp(min=0).flip(0), directions.flip(1)
    ridge = RIDGE * variance.mean() + torch.finfo(torch.float32).tiny
    divided: Tensor = directions * (variance + ridge) ** (-whitening / 2)
    return divided.float()
