"""The one path from photographs to scores, which testing, prediction and Python share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from omiad.anomaly_map import AnomalyMap
from omiad.checkpoint import (
    CHECKPOINT_KEY,
    STATE_PREFIX,
    check_tensors,
    read_checkpoint,
    seal,
    write_checkpoint,
)
from omiad.diffusion import Denoiser, NoiseSchedule, Parameterization
from omiad.diffusion.sampling import ddim_reconstruct, ddim_timesteps
from omiad.errors import InputError
from omiad.features import FeatureExtractor, FeatureNormalizer, fixed_batches
from omiad.features.extractor import FIXED_BATCH
from omiad.features.precision import without_autocast
from omiad.memory import AddedMemories, NormalMemory
from omiad.names import one_line
from omiad.networks import FeatureDecoder, Network, build_network, network_spec
from omiad.networks import trust as trust_network
from omiad.predictor import Predictor
from omiad.product_memory import ProductMemory
from omiad.products import UNKNOWN, Products, description
from omiad.runtimes import ExportedDetector, is_export
from omiad.scoring import Scoring, residual_norm
from omiad.sizes import check_sizes
from omiad.types import Assessment, Prediction

Kind = Literal["AMDM", "OmiAD"]

FREE_ROWS = (
    ".patches",
    *(f"products.{name}" for name in ("centres", "limits", "images", "peaks", "counts")),
    *(f"product_memory.{name}" for name in ("centres", "means", "directions", "residuals")),
)
"""Ends of the names of weights whose number of rows a calibration chooses."""

_SETTINGS = ("kind", "t_init", "num_steps", "eta", "num_noise_draws", "seed")
"""Arguments of a detector that are plain data."""


class Detector(Predictor):
    """Frozen backbone, reconstruction by the diffusion model, and score, in one module.

    The noise of eq. 12 is drawn once from the seed and shared by all images, so that a score
    depends on nothing but the photograph and the model.

    Args:
        extractor: Frozen backbone; backbone and network run in its precision.
        normalizer: Feature normalisation with its statistics.
        denoiser: Network (averaged weights), schedule and parameterisation.
        scoring: How a residual becomes an anomaly map and an image score.
        kind: Which stage trained the network.
        t_init: Step that features are noised to.
        num_steps: DDIM steps from t_init, each one evaluation of the network; 1 is OmiAD's.
        eta: Share of fresh noise in each DDIM step, in 0..1. With eta 1 and num_steps = t_init DDIM
            is the ancestral sampler of eqs. 3 and 4.
        num_noise_draws: Noise maps whose anomaly maps are averaged.
        seed: Seed of the shared noise.

    Attributes:
        memory: Patches of normal images; empty unless `scoring` asks for them.
        added: Patches of products that were added after the training, beside `memory`.
        product_memory: A memory of each product, if `scoring` asks for them.
        pixels: Maps and scores of the distance of each cell.
        products: Products with the scores of their normal photographs; none until they are learned.
        map_range: Values between which anomaly maps are drawn (2,): the median of the maps of
            normal images, and a value clearly above nearly all of them.
        calibrated_for: What memory and map_range were calibrated for (`omiad.calibration`), None
            before any calibration.
        decoder: Draws reconstructions for people; None in most models, and never used to score.
        false_alarms: Rate of false alarms that thresholds are set for; None for the lowest rate of
            at least 1 % that the photographs of each product support.
        teacher_hash: Hash of the weights of the teacher's network; None in stage 1.
        source: Checkpoint that the detector was loaded from, for messages.

    Raises:
        InputError: If t_init, num_steps, eta or num_noise_draws is out of range.
    """

    extractor: FeatureExtractor
    noise: Tensor

    def __init__(
        self,
        *,
        extractor: FeatureExtractor,
        normalizer: FeatureNormalizer,
        denoiser: Denoiser,
        scoring: Scoring,
        t_init: int,
        kind: Kind = "AMDM",
        num_steps: int = 1,
        eta: float = 0.0,
        num_noise_draws: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        denoiser.schedule.check_step(t_init, "t_init")
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
        self.added = AddedMemories(
            extractor.channels_per_stage, residual_weight=scoring.residual_weight
        )
        self.product_memory: ProductMemory | None = None
        if scoring.memory == "product":
            self.product_memory = ProductMemory(
                extractor.folding,
                size=scoring.memory_size,
                residual_weight=scoring.residual_weight,
                residual_whitening=scoring.residual_whitening,
            )
        fold = 1 if self.product_memory is None else extractor.folding.fold
        self.pixels = AnomalyMap(extractor.tiling, fold * extractor.feature_size, scoring)
        self.products = Products(extractor.num_channels)
        self.decoder: FeatureDecoder | None = None
        self.decoder_width: int | None = None
        self.scoring = scoring
        self.kind = kind
        self.t_init = t_init
        self.num_steps = num_steps
        self.eta = eta
        self.num_noise_draws = num_noise_draws
        self.seed = seed
        self.calibrated_for: str | None = None
        self.teacher_hash: str | None = None
        self.false_alarms: float | None = None
        self.source: str | None = None
        generator = torch.Generator().manual_seed(seed)
        grid = extractor.feature_size
        shape = (num_noise_draws, 1, extractor.num_channels, grid, grid)
        self.register_buffer("noise", torch.randn(shape, generator=generator), persistent=False)
        self.register_buffer("map_range", torch.tensor([0.0, 1.0]))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Prediction:
        """Score photographs: uint8 RGB (B, 3, H, W) of the size of the extractor's canvas.

        The scores are the same to the last bit, whatever else is in the batch.

        Raises:
            NotFiniteError: If a score is NaN or infinite.
        """
        return self.score_features(self.extractor.features(images))

    @torch.no_grad()
    def score_features(self, features: Tensor, *, category: str | None = None) -> Prediction:
        """Score the raw backbone features (B, C, h, w) of photographs; see `forward`.

        Args:
            features: Features of photographs.
            category: The product that all photographs show; by default it is recognised. Scores
                depend on it with a memory of each product, and otherwise for products that were
                added after the training.
        """
        return Prediction(*self._assess(features, category)[:2])

    @without_autocast
    def _assess(self, features: Tensor, category: str | None) -> Assessment:
        """Assess features in batches of one length."""
        numbers = self.numbers
        number = UNKNOWN if category is None else numbers.get(category, len(numbers))
        batches = fixed_batches(features, most=self.extractor.tiling.at_once(FIXED_BATCH))
        given = (torch.full_like(x[:, 0, 0, 0], number, dtype=torch.int64) for x in batches)
        parts = zip(*map(self.assess, batches, given), strict=True)
        scores, maps, shown = (torch.cat(part)[: len(features)] for part in parts)
        self.check_finite(scores, maps)
        return Assessment(scores, maps, shown)

    def assess(self, features: Tensor, given: Tensor) -> Assessment:
        """Score raw features (B, C, h, w) by operations on tensors alone, for any B.

        Args:
            features: Features of photographs.
            given: Numbers of the products that the photographs show (B,), int64; `UNKNOWN` has a
                product recognised.
        """
        shown = torch.where(given < 0, self.products.recognise(description(features)), given)
        x_0 = self.normalizer(features)
        tiling, step_noise = self.extractor.tiling, self._step_noise()
        tiles = tiling.split(x_0)
        residuals = (
            x_0 - tiling.join(self._reconstruct(tiles, noise, step_noise)) for noise in self.noise
        )
        distance = torch.stack([self.distance(x_0, each, shown) for each in residuals]).mean(0)
        return Assessment(self.pixels.score(distance), self.pixels(distance), shown)

    @property
    def numbers(self) -> dict[str, int]:
        """Number of each product; one that is being added comes after those that are known."""
        later = self.added.names if self.product_memory is None else self.product_memory.names
        names = dict.fromkeys((*self.products.names, *later))
        return {name: number for number, name in enumerate(names)}

    def assess_images(self, images: Tensor, category: str | None) -> Assessment:
        """Score photographs, and recognise their products; see `inspect`."""
        return self._assess(self.extractor.features(images), category)

    @torch.no_grad()
    def reconstruct(self, features: Tensor) -> Tensor:
        """Reconstruct raw features of tiles (B, C, h, w) with the first noise map, normalised."""
        return self._reconstruct(self.normalizer(features), self.noise[0], self._step_noise())

    def distance(self, x_0: Tensor, residual: Tensor, shown: Tensor | None = None) -> Tensor:
        """Return how far cells are from normal ones (B, 1, h, w), by normalised features.

        `shown` are the numbers of the products of the images (B,); by default they show none.
        """
        memory = self.product_memory
        if memory is not None:
            if shown is None:
                shown = torch.full_like(x_0[:, 0, 0, 0], UNKNOWN, dtype=torch.int64)
            of_product: Tensor = memory(x_0, residual, memory.rows(x_0, shown, [*self.numbers]))
            return of_product
        if not self.scoring.memory_size:
            return residual_norm(residual)
        distance: Tensor = self.memory(x_0, residual)
        if shown is not None:
            distance = self.added(distance, x_0, residual, shown, self.numbers)
        return distance

    @torch.no_grad()
    def picture(self, features: Tensor) -> Tensor | None:
        """Draw the reconstruction of raw features, (B, 3, H, W), uint8; None without a decoder."""
        if self.decoder is None:
            return None
        tiling = self.extractor.tiling
        drawn = tiling.stitch(self.decoder(self.reconstruct(tiling.split(features))))
        return (drawn * 255).round().to(torch.uint8)

    def _reconstruct(self, x_0: Tensor, noise: Tensor, step_noise: Iterator[Tensor]) -> Tensor:
        # The precision is the checkpoint's, whatever precision the caller runs under.
        dtype = self.extractor.autocast_dtype
        with torch.autocast(x_0.device.type, dtype=dtype, enabled=dtype is not None):
            return ddim_reconstruct(
                self.denoiser,
                self.denoiser.schedule,
                x_0,
                noise,
                t_init=self.t_init,
                num_steps=self.num_steps,
                eta=self.eta,
                step_noise=step_noise,
            )

    def _step_noise(self) -> Iterator[Tensor]:
        """Yield the fresh noise of each DDIM step, the same maps for every batch."""
        generator = torch.Generator().manual_seed(self.seed)
        torch.randn(self.noise.shape, generator=generator)  # the first draws are `noise`
        while True:
            yield torch.randn(self.noise.shape[1:], generator=generator).to(self.noise.device)

    @property
    def calibration(self) -> dict[str, Tensor]:
        """What a calibration sets, by its name in the state dict."""
        kept = {"map_range": self.map_range, **self.memory.state_dict(prefix="memory.")}
        if self.product_memory is not None:
            kept |= self.product_memory.state_dict(prefix="product_memory.")
        return kept

    @property
    def spec(self) -> dict[str, Any]:
        """Everything but the weights as plain data, from which `from_spec` rebuilds."""
        return {
            **{name: getattr(self, name) for name in _SETTINGS},
            "extractor": self.extractor.config,
            "extractor_weights_hash": self.extractor.weights_hash,
            "feature_norm": self.normalizer.kind,
            "network": network_spec(cast(Network, self.denoiser.network)),
            "parameterization": self.denoiser.parameterization,
            "scoring": vars(self.scoring),
            "decoder_width": self.decoder_width,
            "teacher_hash": self.teacher_hash,
            "calibrated_for": self.calibrated_for,
            "products": self.products.names,
            "added": self.added.names,
            "remembered": [] if self.product_memory is None else self.product_memory.names,
            "false_alarms": self.false_alarms,
        }

    def with_its_memory(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a state whose memory of each product is empty where it is not of the same size."""
        prefix = "product_memory."
        memory, stored = self.product_memory, state.get(f"{prefix}patches")
        if memory is not None and stored is not None and stored.shape[1] == memory.size:
            return state
        others = {key: value for key, value in state.items() if not key.startswith(prefix)}
        if memory is None:
            return others
        memory.names = []
        return {**others, **memory.state_dict(prefix=prefix)}

    def forget_products(self) -> None:
        """Forget all products, and the patches of those that were added after the training."""
        extractor, weight = self.extractor, self.scoring.residual_weight
        self.products = Products(extractor.num_channels).to(self.map_range.device)
        self.added = AddedMemories(extractor.channels_per_stage, residual_weight=weight)

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> "Detector":
        """Build a detector from `spec`, with weights that are still to be loaded."""
        extractor = FeatureExtractor(**spec["extractor"], weights="random")
        denoiser = Denoiser(
            build_network(spec["network"]),
            NoiseSchedule(),
            parameterization=cast(Parameterization, spec["parameterization"]),
        )
        detector = cls(
            extractor=extractor,
            normalizer=FeatureNormalizer(extractor.num_channels, kind=spec["feature_norm"]),
            denoiser=denoiser,
            scoring=Scoring(**spec["scoring"]),
            **{name: spec[name] for name in _SETTINGS},
        )
        if (width := spec["decoder_width"]) is not None:
            detector.add_decoder(width)
        detector.teacher_hash = spec["teacher_hash"]
        detector.calibrated_for = spec["calibrated_for"]
        detector.products.names = list(spec["products"])
        for name in spec.get("added", []):
            detector.added.add(name)
        if detector.product_memory is not None:
            detector.product_memory.names = list(spec.get("remembered", []))
        detector.false_alarms = spec["false_alarms"]
        return detector

    def save(self, path: str | Path, *, like: str | Path) -> None:
        """Write the detector as a checkpoint that scores, and that no training can resume.

        Args:
            path: The file to write.
            like: The checkpoint that the detector comes from, whose data settings are kept.

        Raises:
            InputError: If the disk is full.
        """
        source = read_checkpoint(like)
        known = {*source[CHECKPOINT_KEY]["categories"], *self.products.names}
        record = {
            **source[CHECKPOINT_KEY],
            "trained": None,
            "categories": sorted(known),
            "detector": self.spec,
        }
        state = {f"{STATE_PREFIX}{key}": value for key, value in self.state_dict().items()}
        training: dict[str, Any] = {
            "optimizer_states": [],
            "lr_schedulers": [],
            "loops": {},
            "callbacks": {},
        }
        checkpoint = {**source, **training, CHECKPOINT_KEY: record, "state_dict": state}
        seal(checkpoint)
        write_checkpoint(path, checkpoint)

    def add_decoder(self, width: int) -> FeatureDecoder:
        """Add an untrained decoder with so many channels at the grid, and return the decoder."""
        self.decoder_width = width
        self.decoder = FeatureDecoder(
            self.extractor.num_channels,
            feature_size=self.extractor.feature_size,
            image_size=self.extractor.image_size,
            width=width,
        )
        return self.decoder

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | torch.device = "cpu",
        trust: str | None = None,
        **changes: Any,
    ) -> "Detector":
        """Load the detector of a checkpoint; no other file is needed.

        Args:
            path: A .ckpt file that `omiad fit` wrote. A file of `omiad export` becomes an
                `omiad.runtimes.ExportedDetector`, which predicts and inspects.
            device: Where the detector goes.
            trust: Class path of a network of your own that the checkpoint names; it is imported.
            changes: Entries of `spec` to replace, such as t_init. Thresholds belong to the settings
                that they were set with, so a change forgets them. Calibrate the detector again
                after a change that the memory or the scale of the maps depends on.

        Raises:
            MissingInputError: If the file does not exist.
            InputError: If omiad did not write the file, if the file is damaged, if it names a class
                that is not trusted, or if a change is out of range.

        Examples:
            >>> from omiad import Detector
            >>> Detector.load("model.ckpt").products.names
            ['bolt', 'nut']
            >>> Detector.load("model.ckpt", num_steps=10).num_steps
            10
        """
        if is_export(path):
            if changes:
                raise InputError(
                    f"'{one_line(str(path))}' is an export, whose {', '.join(changes)} cannot be "
                    f"changed. Change the checkpoint, and export it again."
                )
            return cast("Detector", ExportedDetector.load(path, device))
        if trust is not None:
            trust_network(trust)
        checkpoint = read_checkpoint(path)
        spec = checkpoint[CHECKPOINT_KEY]["detector"]
        if unknown := changes.keys() - spec.keys():
            raise InputError(
                f"A detector has no {', '.join(unknown)}. Choose from {', '.join(spec)}."
            )
        name = f"'{one_line(str(path))}'"
        state = {
            key.removeprefix(STATE_PREFIX): value
            for key, value in checkpoint["state_dict"].items()
            if key.startswith(STATE_PREFIX)
        }
        check_sizes(spec, state, name)
        detector = cls.from_spec({**spec, **changes})
        if changes.get("scoring", spec["scoring"]) != spec["scoring"]:
            state = detector.with_its_memory(state)
        check_tensors(state, detector.state_dict(), name, free_rows=FREE_ROWS)
        detector.load_state_dict(state)
        detector.products.check(name, added=detector.added.names)
        if detector.product_memory is not None:
            detector.product_memory.check(name)
        if detector.extractor.weights_hash != spec["extractor_weights_hash"]:
            raise InputError(
                f"The backbone's weights in {name} are not those that the model was trained with. "
                f"The file was changed; give another checkpoint."
            )
        if any(spec.get(entry) != value for entry, value in changes.items()):
            detector.products.forget_scores()
        detector.source = name
        return detector.to(device).eval()
