"""The one path from photographs to scores, which testing, prediction and export share."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn

from omiad.checkpoint import CHECKPOINT_KEY, STATE_PREFIX, read_checkpoint
from omiad.diffusion import Denoiser, NoiseSchedule, Parameterization
from omiad.diffusion.sampling import (
    Sampler,
    ddim_reconstruct,
    ddim_timesteps,
    ddpm_reconstruct,
)
from omiad.errors import InputError
from omiad.features import FeatureExtractor, FeatureNormalizer
from omiad.memory import NormalMemory, cells, coreset
from omiad.networks import Network, build_network, network_spec
from omiad.scoring import Scoring, anomaly_map, blurred, image_score, residual_norm
from omiad.types import Prediction

AUTOCAST_DTYPES: dict[str, torch.dtype | None] = {
    "float32": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

_NUM_SHOWN = 4
"""Images of each category that the range of the maps is taken from, at least."""

_NUM_REMEMBERED = 256
"""Images of each category at most that the memory's patches come from."""

_CALIBRATION_BATCH_SIZE = 32


class Detector(nn.Module):
    """Frozen backbone, reconstruction by the diffusion model, and score, in one module.

    The noise of eq. 12 is drawn once from the seed and shared by all images, so that a score
    depends on nothing but the photograph and the model.

    Attributes:
        extractor: Photographs to raw features.
        normalizer: Raw features to the units the network and the anomaly map live in.
        denoiser: The network at inference (EMA weights) with its schedule.
        memory: Normal patches, if the scoring asks for them.
        map_range: Two numbers between which anomaly maps are drawn: the median of the maps of
            normal training images, and a value clearly above nearly all of them.
    """

    noise: Tensor
    map_range: Tensor

    def __init__(
        self,
        *,
        extractor: FeatureExtractor,
        normalizer: FeatureNormalizer,
        denoiser: Denoiser,
        scoring: Scoring,
        t_init: int,
        num_steps: int = 1,
        sampler: Sampler = "ddim",
        eta: float = 0.0,
        num_noise_draws: int = 1,
        seed: int = 0,
        autocast_dtype: torch.dtype | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            extractor: Frozen backbone.
            normalizer: Feature normalisation with its statistics.
            denoiser: Network, schedule and parameterisation.
            scoring: How a residual becomes a map and a score.
            t_init: Step the features are noised to.
            num_steps: DDIM's network evaluations per image; 1 is OmiAD's one step.
            sampler: ddim, or ddpm for the ancestral sampler, which takes every step from t_init.
            eta: DDIM's share of fresh noise in each step, in 0..1.
            num_noise_draws: Noise maps whose anomaly maps are averaged.
            seed: Seed of the shared noise.
            autocast_dtype: Half precision of backbone and network, None for float32.

        Raises:
            InputError: If t_init, num_steps, eta or num_noise_draws is out of range, or the
                sampler is unknown.
        """
        super().__init__()
        denoiser.schedule.check_step(t_init, "t_init")
        if sampler not in get_args(Sampler):
            raise InputError(
                f"sampler must be one of {', '.join(get_args(Sampler))}, but got '{sampler}'."
            )
        if sampler == "ddpm":
            num_steps = t_init
        ddim_timesteps(t_init, num_steps)
        if not 0 <= eta <= 1:
            raise InputError(f"eta must lie in 0..1, but got {eta}.")
        if num_noise_draws < 1:
            raise InputError(f"num_noise_draws must be at least 1, but got {num_noise_draws}.")
        self.extractor = extractor
        self.normalizer = normalizer
        self.denoiser = denoiser
        self.memory = NormalMemory(
            extractor.channels_per_stage, residual_weight=scoring.residual_weight
        )
        self.scoring = scoring
        self.t_init = t_init
        self.num_steps = num_steps
        self.sampler = sampler
        self.eta = eta
        self.seed = seed
        self.autocast_dtype = autocast_dtype
        generator = torch.Generator().manual_seed(seed)
        grid = extractor.feature_size
        noise = torch.randn(
            num_noise_draws, 1, extractor.num_channels, grid, grid, generator=generator
        )
        self.register_buffer("noise", noise, persistent=False)
        self.register_buffer("map_range", torch.tensor([0.0, 1.0]))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Prediction:
        """Score photographs: uint8 RGB (B, 3, S, S), S the extractor's image size."""
        with self._autocast(images.device):
            features = self.extractor(images).half()  # as the data module has them
        return self.score_features(features)

    @torch.no_grad()
    def reconstruct(self, features: Tensor) -> Tensor:
        """Return what raw features (B, C, h, w) are reconstructed to, by the first noise map.

        The result is normalised, as the network sees features.
        """
        x_0 = self.normalizer(features)
        return self._reconstruct(x_0, self.noise[0], self._step_noise())

    @torch.no_grad()
    def score_features(self, features: Tensor) -> Prediction:
        """Score raw backbone features (B, C, h, w)."""
        x_0 = self.normalizer(features)
        step_noise = self._step_noise()
        maps = [
            self._map(x_0, x_0 - self._reconstruct(x_0, noise, step_noise)) for noise in self.noise
        ]
        mean_map = torch.stack(maps).mean(0)
        return Prediction(image_score(mean_map, self.scoring), blurred(mean_map, self.scoring))

    def _map(self, x_0: Tensor, residual: Tensor) -> Tensor:
        if self.scoring.memory_size:
            distance = self.memory(x_0, residual)
        else:
            distance = residual_norm(residual)
        return anomaly_map(distance, self.extractor.image_size)

    def _reconstruct(self, x_0: Tensor, noise: Tensor, step_noise: Iterator[Tensor]) -> Tensor:
        schedule = self.denoiser.schedule
        with self._autocast(x_0.device):
            if self.sampler == "ddpm":
                return ddpm_reconstruct(
                    self.denoiser, schedule, x_0, noise, t_init=self.t_init, step_noise=step_noise
                )
            return ddim_reconstruct(
                self.denoiser,
                schedule,
                x_0,
                noise,
                t_init=self.t_init,
                num_steps=self.num_steps,
                eta=self.eta,
                step_noise=step_noise,
            )

    def _step_noise(self) -> Iterator[Tensor]:
        """Yield the noise of a stochastic sampler's steps: for every batch the same maps."""
        generator = torch.Generator().manual_seed(self.seed)
        torch.randn(self.noise.shape, generator=generator)  # the first draws are `noise`
        while True:
            yield torch.randn(self.noise.shape[1:], generator=generator).to(self.noise.device)

    def _autocast(self, device: torch.device) -> torch.autocast:
        # Overrides whatever precision the caller runs under: the score is the checkpoint's.
        return torch.autocast(
            device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None
        )

    @torch.no_grad()
    def calibrate(self, categories: Iterable[Tensor]) -> None:
        """Learn from normal images what scoring needs: the memory and the range of the maps.

        The memory holds a coreset of as many patches of every category, all where there are fewer,
        and residuals weigh in units of their root mean square over all categories alike. The range
        starts at the median of the pixels of some images, which the memory leaves out for that, and
        is 2.5 times as wide as the distance from there to their 99th percentile, so that normal
        images stay dark.

        Args:
            categories: Raw features of normal images of each category (N, C, h, w).
        """
        generator = torch.Generator().manual_seed(self.seed)
        shown: list[tuple[Tensor, Tensor]] = []  # features and residuals of images
        kept: list[tuple[Tensor, Tensor, Tensor]] = []  # of patches, and whether they are shown
        squares: list[Tensor] = []  # means over a category's patches
        for features in categories:
            x_0, residual = self._residuals(features)
            is_shown = torch.zeros(len(x_0), dtype=torch.bool, device=x_0.device)
            # With a memory at most every other one, so that something is left to remember.
            step = max(2 if self.scoring.memory_size else 1, len(x_0) // _NUM_SHOWN)
            is_shown[::step] = True
            shown.append((x_0[is_shown], residual[is_shown]))
            if self.scoring.memory_size:
                cells_per_image = x_0[0, 0].numel()
                x_0, residual = cells(x_0), cells(residual)
                squares.append(residual.square().mean(0))
                patches = self.memory.joined(x_0, residual, squares[-1].sqrt())
                rows = coreset(patches, self.scoring.memory_size, generator)
                kept.append((x_0[rows], residual[rows], is_shown[rows // cells_per_image]))
        if kept:
            x_0, residual, is_shown = (torch.cat(parts) for parts in zip(*kept, strict=True))
            rms = torch.stack(squares).mean(0).sqrt()
            rest = is_shown if is_shown.all() else ~is_shown
            self.memory.fit(x_0[rest], residual[rest], rms)
        maps = [blurred(self._map(*pair), self.scoring).flatten() for pair in shown]
        low, high = _quantiles(torch.cat(maps), (0.5, 0.99))
        self.map_range.copy_(torch.stack([low, low + 2.5 * (high - low)]))
        if kept:
            self.memory.fit(x_0, residual, rms)

    @property
    def num_calibration_images(self) -> int:
        """Images of each category that `calibrate` has a use for."""
        return _NUM_REMEMBERED if self.scoring.memory_size else _NUM_SHOWN

    @property
    def calibration(self) -> dict[str, Tensor]:
        """What `calibrate` sets, by its name in the state dict."""
        memory = self.memory.state_dict(prefix="memory.")
        return {"map_range": self.map_range, **memory}

    def is_used_unlike(self, spec: dict[str, Any]) -> bool:
        """Return whether a detector of that `spec` leaves other residuals or keeps others."""
        mine, theirs = (
            {**spec, **vars(Scoring()), **spec["scoring"]} for spec in (self.spec, spec)
        )
        names = ("t_init", "num_steps", "sampler", "eta", "seed", "memory_size", "residual_weight")
        return any(theirs.get(name, mine[name]) != mine[name] for name in names)

    def _residuals(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (N, C, h, w) and what the first noise map leaves of them."""
        x_0 = self.normalizer(features)
        parts = [
            part - self._reconstruct(part, self.noise[0], self._step_noise())
            for part in x_0.split(_CALIBRATION_BATCH_SIZE)
        ]
        return x_0, torch.cat(parts)

    @property
    def spec(self) -> dict[str, Any]:
        """Everything but the weights as plain data, from which `from_spec` rebuilds."""
        names = {dtype: name for name, dtype in AUTOCAST_DTYPES.items()}
        return {
            "extractor": self.extractor.config,
            "extractor_weights_hash": self.extractor.weights_hash,
            "feature_norm": self.normalizer.kind,
            "network": network_spec(cast(Network, self.denoiser.network)),
            "parameterization": self.denoiser.parameterization,
            "num_timesteps": self.denoiser.schedule.num_timesteps,
            "scoring": vars(self.scoring),
            "t_init": self.t_init,
            "num_steps": self.num_steps,
            "sampler": self.sampler,
            "eta": self.eta,
            "num_noise_draws": self.noise.shape[0],
            "seed": self.seed,
            "precision": names[self.autocast_dtype],
        }

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> "Detector":
        """Build a detector whose weights are still to be loaded."""
        extractor = FeatureExtractor.build_empty(spec["extractor"])
        denoiser = Denoiser(
            build_network(spec["network"]),
            NoiseSchedule(spec["num_timesteps"]),
            parameterization=cast(Parameterization, spec["parameterization"]),
        )
        return cls(
            extractor=extractor,
            normalizer=FeatureNormalizer(extractor.num_channels, kind=spec["feature_norm"]),
            denoiser=denoiser,
            scoring=Scoring(**spec["scoring"]),
            t_init=spec["t_init"],
            num_steps=spec["num_steps"],
            # The first checkpoints knew deterministic DDIM alone.
            sampler=spec.get("sampler", "ddim"),
            eta=spec.get("eta", 0.0),
            num_noise_draws=spec["num_noise_draws"],
            seed=spec["seed"],
            autocast_dtype=AUTOCAST_DTYPES[spec["precision"]],
        )

    @classmethod
    def load(cls, path: str | Path, *, device: str | torch.device = "cpu") -> "Detector":
        """Load the detector of an AMDM or OmiAD checkpoint; no other file is needed.

        Raises:
            MissingInputError: If the file does not exist.
            InputError: If it is not a checkpoint written by omiad.
        """
        checkpoint = read_checkpoint(path)
        detector = cls.from_spec(checkpoint[CHECKPOINT_KEY]["detector"])
        state = checkpoint["state_dict"]
        detector.load_state_dict(
            {
                k.removeprefix(STATE_PREFIX): v
                for k, v in state.items()
                if k.startswith(STATE_PREFIX)
            }
        )
        return detector.to(device).eval()


def _quantiles(values: Tensor, shares: tuple[float, ...]) -> Tensor:
    """Return values below which these shares lie; torch.quantile takes no more than 2**24."""
    step = 1 + len(values) // 2**24
    return torch.quantile(values[::step], values.new_tensor(shares))
