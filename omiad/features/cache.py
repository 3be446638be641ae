"""Features of a list of images on disk, computed once and mapped into memory."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset

from omiad.errors import MissingInputError
from omiad.features import building
from omiad.features.extractor import FeatureExtractor
from omiad.features.reading import FileLoader, ImageFiles
from omiad.types import Sample

try:
    import fcntl
except ImportError:  # Windows: two processes must not build the same cache at once
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)


class FeatureStatistics(NamedTuple):
    """Statistics of raw features over all images and positions.

    Attributes:
        mean: Mean of each channel (C,), float64.
        std: Standard deviation of each channel (C,), float64, at least a thousandth of `rms`, so
            that a channel that never varies in training does not drown the others in a test.
        rms: Root mean square of all values.
    """

    mean: Tensor
    std: Tensor
    rms: float


class FeatureCache(Dataset[Tensor]):
    """Half-precision features of a list of images, mapped from a file; made by `open_or_build`.

    An item is the features (C, h, w) of one image, a view of the file's pages.

    Args:
        path: Folder of a finished cache.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        meta = json.loads((path / building.META).read_text())
        stored = meta["statistics"]
        self.statistics = FeatureStatistics(
            mean=torch.tensor(stored["mean"], dtype=torch.float64),
            std=torch.tensor(stored["std"], dtype=torch.float64),
            rms=stored["rms"],
        )
        self._features = building.map_features(path, tuple(meta["shape"]))

    def __len__(self) -> int:
        return len(self._features)

    def __getitem__(self, index: int) -> Tensor:
        return self._features[index]

    def __reduce__(self) -> tuple[type["FeatureCache"], tuple[Path]]:
        # A worker process maps the file itself instead of receiving a copy.
        return type(self), (self.path,)

    @classmethod
    def open_or_build(
        cls,
        samples: Sequence[Sample],
        extractor: FeatureExtractor,
        *,
        root: Path,
        cache_dir: Path,
        read: Callable[[Path, int], Tensor],
        batch_size: int = 32,
        num_workers: int = 0,
        device: torch.device | str = "cpu",
        autocast_dtype: torch.dtype | None = None,
        progress: bool = True,
    ) -> "FeatureCache":
        """Open the cache of these images and this extractor, or build it.

        The folder's name is a hash of extractor, weights, autocast dtype, and every file's path
        below the root, size and time of change. A finished cache is opened without opening an
        image; an interrupted build goes on where it stopped; a damaged cache is built again. A
        second process that wants the same cache waits for the first.

        Args:
            samples: Images, in the order of the cache's rows; at least one.
            extractor: Moved to the device if there is something to build.
            root: Folder of the data set.
            cache_dir: Folder of all caches.
            read: Reads an image file as uint8 (3, size, size); picklable if there are workers.
            batch_size: Images per forward pass.
            num_workers: Processes that read images.
            device: Where the extractor runs.
            autocast_dtype: Precision of the backbone, None for the weights' own.
            progress: Whether to draw a progress bar.

        Raises:
            MissingInputError: If an image is gone.
            InputError: If an image cannot be read or has no finite features, or the disk is full.
        """
        made_of = {
            "extractor": extractor.fingerprint,
            "config": extractor.config,
            "autocast_dtype": str(autocast_dtype),
            "files": [_describe(sample.image, root) for sample in samples],
        }
        key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:32]
        path = cache_dir.expanduser() / key
        path.mkdir(parents=True, exist_ok=True)
        grid = extractor.feature_size
        shape = (len(samples), extractor.num_channels, grid, grid)
        with _locked(path):
            if not building.is_finished(path, shape):
                part = building.Part(path, shape)
                images = [sample.image for sample in samples[part.rows_done :]]
                loader: FileLoader[Tensor] = FileLoader(
                    ImageFiles(images, extractor.image_size, read),
                    batch_size=batch_size,
                    num_workers=num_workers,
                    generator=torch.Generator(),  # leave torch's global random state alone
                )
                shown = track(loader, "features", total=len(loader), disable=not progress)
                device = torch.device(device)
                part.write(
                    building.extract(shown, extractor.to(device), device, autocast_dtype), images
                )
                statistics = building.measure(path, shape)
                building.write_meta(path, {**made_of, "shape": shape, "statistics": statistics})
        return cls(path)


def _describe(image: Path, root: Path) -> tuple[str, int, int]:
    try:
        stat = image.stat()
    except FileNotFoundError as error:
        raise MissingInputError(
            f"The training image '{image}' is gone. Put it back, or start again to list the files "
            f"anew."
        ) from error
    return image.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with (path / "lock").open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("feature cache: waiting for another process to build '%s'", path)
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
