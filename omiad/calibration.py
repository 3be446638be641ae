"""What scoring learns from normal photographs after training: the memory and the map scale.

A detector is calibrated when a fit ends, briefly when a checkpoint is saved before, and again when
something that `calibration_key` names has changed; it carries the key that it was calibrated for.
"""

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from omiad.detector import Detector
from omiad.features import weights_hash
from omiad.memory import cells, coreset
from omiad.product_memory import ProductMemory
from omiad.scoring import map_scale
from omiad.tiling import Tiling

NUM_REMEMBERED = 256
"""Images of each category, at most, whose patches the memory chooses from."""

NUM_SCALED = 4
"""About how many images of each category set the scale of the anomaly maps."""

NUM_BRIEF = 64
"""Images of all categories together that a brief calibration reads, but at least two of each."""

FEWEST_REMEMBERED = 16
"""Images of each category, at least, whose patches the memory chooses from, if they have tiles."""

_BATCH_SIZE = 32


def calibration_key(detector: Detector) -> str:
    """Hash everything that the result of a calibration depends on, except the photographs."""
    spec = detector.spec
    used = ("extractor", "extractor_weights_hash", "t_init", "num_steps", "eta", "seed")
    scoring = ("memory_size", "memory", "residual_weight", "residual_whitening", "blur_sigma")
    parts = [
        [spec[name] for name in used],
        [spec["scoring"][name] for name in scoring],
        spec["num_noise_draws"],  # the noise of later DDIM steps is drawn after these
        weights_hash(detector.denoiser),
        weights_hash(detector.normalizer),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def is_calibrated(detector: Detector, *, brief: bool = False) -> bool:
    """Return whether a calibration, or a brief one, would change nothing."""
    key = calibration_key(detector)
    return detector.calibrated_for in ([key, f"{key} briefly"] if brief else [key])


@torch.no_grad()
def calibrate(
    detector: Detector,
    features: Dataset[Tensor],
    categories: Mapping[str, Sequence[int]],
    *,
    brief: bool = False,
) -> None:
    """Fill the memory of a detector, and set the scale of its anomaly maps.

    A shared memory keeps a coreset of `scoring.memory_size` patches of every category, or all
    patches where a category has fewer, and weighs residuals in units of their root mean square over
    all categories. A memory of each product is filled as `omiad.product_memory` describes.

    The scale of the maps (`scoring.map_scale`) is that of about `NUM_SCALED` images of every
    category. Each of these images is compared with a coreset of the other images of its category.
    A category of a single image has no other images. With a shared memory it does not count unless
    every category is like that; then each quarter of the image is compared with the remaining
    three. With a memory of each product it is compared with itself.

    The detector forgets its products, whose normal photographs were scored before.

    Args:
        detector: The detector, on the device that computes.
        features: Raw features (C, h, w) of normal photographs, by position.
        categories: Positions of the photographs of each category.
        brief: Read few photographs, for a checkpoint in the middle of a run.
    """
    detector.forget_products()
    most, tiling = NUM_SCALED, detector.extractor.tiling
    if detector.scoring.remembers:
        most = most_remembered(tiling)
    if brief:
        most = min(most, max(2, tiling.at_once(NUM_BRIEF) // len(categories)))
    images = (_residuals(detector, features, _spread(p, most)) for p in categories.values())
    if detector.product_memory is not None:
        apart = _fill_product_memory(detector, detector.product_memory, categories, images)
    elif detector.scoring.memory_size:
        apart = _fill_memory(detector, images)
    else:
        apart = [detector.distance(*pair) for pair in images]
    pixels = torch.cat([detector.pixels(distance).flatten() for distance in apart])
    detector.map_range.copy_(torch.tensor(map_scale(pixels)))
    detector.calibrated_for = calibration_key(detector) + (" briefly" if brief else "")


@torch.no_grad()
def remember(
    detector: Detector, features: Dataset[Tensor], categories: Mapping[str, Sequence[int]]
) -> None:
    """Give products that were not in training memories of their own, as large as `calibrate` does.

    What the detector held before does not change. Residuals are weighed in the units that
    `calibrate` found.

    Args:
        detector: The detector, calibrated, on the device that computes.
        features: Raw features (C, h, w) of normal photographs, by position.
        categories: Positions of the photographs of each product.
    """
    if not detector.scoring.remembers:
        return
    generator = torch.Generator().manual_seed(detector.seed)
    most = most_remembered(detector.extractor.tiling)
    for name, positions in categories.items():
        x_0, residual = _residuals(detector, features, _spread(positions, most))
        if detector.product_memory is not None:
            detector.product_memory.add(name, x_0, residual, seed=detector.seed)
            continue
        rms = cells(residual).square().mean(0).sqrt()
        patches = _coreset(detector, x_0, residual, rms, generator)
        detector.added.add(name).to(x_0.device).fit(*patches, detector.memory.rms)


def most_remembered(tiling: Tiling) -> int:
    """Return of how many images of a category, at most, the memory chooses patches."""
    return max(FEWEST_REMEMBERED, tiling.at_once(NUM_REMEMBERED))


def _fill_memory(detector: Detector, categories: Iterable[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Fill the memory from features and residuals (N, C, h, w) of the images of each category.

    Returns:
        Distances (N, 1, h, w) of images that were compared with other images.
    """
    generator = torch.Generator().manual_seed(detector.seed)
    kept: list[tuple[Tensor, Tensor]] = []  # features and residuals of the memory's patches
    squares: list[Tensor] = []  # mean square of each category's residual
    scaled: list[tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]] = []
    for x_0, residual in categories:
        squares.append(cells(residual).square().mean(0))
        rms = squares[-1].sqrt()
        kept.append(_coreset(detector, x_0, residual, rms, generator))
        is_scaled = _scaled(x_0)
        others = None
        if len(x_0) > 1:
            own = torch.Generator().manual_seed(detector.seed)  # the memory's draws stay the same
            others = _coreset(detector, x_0[~is_scaled], residual[~is_scaled], rms, own)
        scaled.append((x_0[is_scaled], residual[is_scaled], others))
    rms = torch.stack(squares).mean(0).sqrt()
    compared = [images for images in scaled if images[2] is not None] or scaled
    apart = [_distance_without_itself(detector, *images, rms) for images in compared]
    x_0, residual = (torch.cat(parts) for parts in zip(*kept, strict=True))
    detector.memory.fit(x_0, residual, rms)
    return apart


def _fill_product_memory(
    detector: Detector,
    memory: ProductMemory,
    names: Iterable[str],
    categories: Iterable[tuple[Tensor, Tensor]],
) -> list[Tensor]:
    """Fill the memory of each product from features and residuals (N, C, h, w) of its images.

    Returns:
        Distances (N, 1, h, w) of images that were compared with other images.
    """
    filled = copy.deepcopy(memory)
    filled.forget()
    described, apart = [], []
    for name, (x_0, residual) in zip(names, categories, strict=True):
        described.append(x_0.mean((2, 3)))
        filled.add(name, x_0, residual, seed=detector.seed)
        is_scaled = _scaled(x_0)
        memory.forget()
        others = is_scaled if is_scaled.all() else ~is_scaled
        memory.add(name, x_0[others], residual[others], seed=detector.seed)
        memory.recognise_by(described[-1:])
        apart.append(detector.distance(x_0[is_scaled], residual[is_scaled]))
    filled.recognise_by(described)
    detector.product_memory = filled
    return apart


def _scaled(x_0: Tensor) -> Tensor:
    """Choose the images (N,) whose maps set the scale; at least every other one is left."""
    is_scaled = torch.zeros(len(x_0), dtype=torch.bool, device=x_0.device)
    is_scaled[:: max(2, len(x_0) // NUM_SCALED)] = True
    return is_scaled


def _residuals(
    detector: Detector, features: Dataset[Tensor], positions: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return normalised features (N, C, h, w) and what the first noise map leaves of them."""
    raw = torch.stack([features[i] for i in positions]).to(detector.map_range.device)
    x_0 = detector.normalizer(raw)
    tiling = detector.extractor.tiling
    parts = torch.split(tiling.split(raw), _BATCH_SIZE)
    reconstructed = torch.cat([detector.reconstruct(part) for part in parts])
    return x_0, x_0 - tiling.join(reconstructed)


def _coreset(
    detector: Detector, x_0: Tensor, residual: Tensor, rms: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Choose the patches (M, C) of images (N, C, h, w) that represent the others best."""
    x_0, residual = cells(x_0), cells(residual)
    patches = detector.memory.joined(x_0, residual, rms)
    rows = coreset(patches, detector.scoring.memory_size, generator)
    return x_0[rows], residual[rows]


def _distance_without_itself(
    detector: Detector,
    x_0: Tensor,
    residual: Tensor,
    others: tuple[Tensor, Tensor] | None,
    rms: Tensor,
) -> Tensor:
    """Return the distances of images from patches of others, or of the rest of the same image."""
    memory = detector.memory
    if others is not None:
        memory.fit(*others, rms)
        return detector.distance(x_0, residual)
    height, width = x_0.shape[-2:]
    rows, columns = torch.arange(height) * 2 // height, torch.arange(width) * 2 // width
    quarter = (2 * rows[:, None] + columns).flatten().to(x_0.device)
    distance = x_0.new_zeros(1, 1, height, width, dtype=torch.float32)
    for number in range(int(quarter.max()) + 1):
        is_inside = quarter == number
        memory.fit(cells(x_0)[~is_inside], cells(residual)[~is_inside], rms)
        distance.view(-1)[is_inside] = memory(x_0, residual).flatten()[is_inside]
    return distance


def _spread(positions: Sequence[int], most: int) -> list[int]:
    """Pick at most so many positions, evenly spaced."""
    count = min(len(positions), most)
    return [positions[i * len(positions) // count] for i in range(count)]
