"""The data of a run: cached features to train on, photographs to test on."""

import logging
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from omiad.data.features import Cache, FeatureSource, Split
from omiad.data.images import ImageDataset, PrepareMask, read_image
from omiad.data.layouts import Layout, index_dataset
from omiad.data.loading import (
    CachedFeatures,
    PhotographBatch,
    ResumableLoader,
    TrainingPhotographs,
    collate,
)
from omiad.data.packing import PackedSamples
from omiad.data.sampling import EpochSampler, EvaluationSampler, Sampling
from omiad.errors import InputError
from omiad.features import (
    Build,
    CacheKey,
    FeatureCache,
    FeatureExtractor,
    FeatureStatistics,
    StreamedFeatures,
)
from omiad.features.reading import FileLoader
from omiad.types import FeatureBatch, ImageBatch, Sample, ScoringBatch

EXTRACTION_BATCH_SIZE = 32
"""Images per forward pass of the backbone; fixed, so that features do not depend on the run's."""

logger = logging.getLogger(__name__)

_PRECISIONS = {"bf16-mixed": "bfloat16", "16-mixed": "float16"}


class FeatureDataModule(LightningDataModule):
    """Images of all categories, as features of a frozen backbone.

    The features of the training images are computed once and kept in a cache on disk; training
    reads only those. Those of the test images are computed as they stream by, or kept as well.

    Args:
        root: Folder of the data set.
        layout: How it lies there: mvtec (also mpdd and synthetic), visa, realiad, realiad_sv (its
            first view alone), folder (your own photographs), or auto, which looks at the folders.
        backbone: Model name of timm.
        weights: Weights of the backbone: pretrained (downloaded once by timm), random, or a file
            (.safetensors, .pth, .pt, .bin in timm's naming, or an omiad .ckpt), or a folder with
            a file named like the backbone.
        image_size: Side in pixels that images are resized to, without keeping the aspect ratio.
        feature_size: Side of the feature grid in cells.
        stages: Feature maps of the backbone to use, in timm's numbering; by default those down to
            a sixteenth of the image or, of a plain ViT, four blocks evenly spaced.
        antialias: Average where a feature map shrinks to the grid, instead of picking values.
        window: Side of the square that every value of a feature map is first averaged over, odd, as
            in PatchCore; 1 is none.
        zero_pad: Average over zeros beyond the border too, instead of what lies inside alone, so
            that cells at the border count less.
        cache: Keep the features on disk of the training images (true), of all images (all), or of
            none (false); of others the backbone computes the same numbers in every step.
        cache_dir: Folder of the feature caches; a cache takes images x channels x grid x 2 bytes.
        cache_budget: GiB that all caches in the folder may take, None for what the disk has.
        cache_key: What tells that an image has changed: stat (path, size and time of change) or
            content (its bytes, which are read at each start).
        sampling: natural shows every training image once in an epoch; balanced shows of every
            category as many as the smallest has, other ones in each epoch.
        batch_size: Images per batch and device in training; tests take 32 at a time, so that no
            score depends on it.
        num_workers: Processes that read images or cached features.
        seed: Of the order of training images, and of random backbone weights.

    Attributes:
        prepare_mask: Brings a test mask to the image size; by default as `read_mask` does.
    """

    def __init__(
        self,
        root: str,
        *,
        layout: Layout = "auto",
        backbone: str = "tf_efficientnet_b4.aa_in1k",
        weights: str = "pretrained",
        image_size: int = 224,
        feature_size: int = 32,
        stages: list[int] | None = None,
        antialias: bool = False,
        window: int = 1,
        zero_pad: bool = False,
        cache: Cache = True,
        cache_dir: str = "~/.cache/omiad",
        cache_budget: float | None = None,
        cache_key: CacheKey = "stat",
        sampling: Sampling = "natural",
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        # Not to the logger: the model logs a seed of its own, and Lightning allows each name once.
        self.save_hyperparameters(logger=False)
        if batch_size < 1 or num_workers < 0 or seed < 0:
            raise InputError(
                f"--data.batch_size must be at least 1, --data.num_workers and --data.seed at "
                f"least 0, but got {batch_size}, {num_workers} and {seed}."
            )
        self.root = Path(root).expanduser()
        self.layout: Layout = layout
        self.image_size = image_size
        self._source = FeatureSource(
            root=self.root,
            cache=cache,
            cache_dir=Path(cache_dir).expanduser(),
            budget=cache_budget,
            key=cache_key,
        )
        self.sampling: Sampling = sampling
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self._build_extractor = partial(
            FeatureExtractor,
            backbone,
            weights=weights,
            image_size=image_size,
            feature_size=feature_size,
            stages=stages,
            antialias=antialias,
            window=window,
            zero_pad=zero_pad,
            seed=seed,
        )
        self.prepare_mask: PrepareMask | None = None
        self._extractor: FeatureExtractor | None = None
        self._train_features: FeatureCache | StreamedFeatures | None = None
        # A run sets them in setup, and a loaded model its own precision.
        self.device: torch.device | str = "cpu"

    def setup(self, stage: str | None = None) -> None:
        """List the files, build the extractor and, for training, open or build the cache.

        Raises:
            MissingInputError: If the root or the weights do not exist.
            InputError: If the data set, its images, or the backbone cannot be used.
        """
        if stage in ("test", None) and not self.samples("test"):
            raise InputError(
                f"'{self.root}' has no test images. Put some in <category>/test/good and "
                f"<category>/test/<defect>."
            )
        if self.trainer is not None:
            self.device = self.trainer.strategy.root_device
        if stage in ("fit", None) and self.trainer is not None:
            self.extractor.precision = _PRECISIONS.get(str(self.trainer.precision), "float32")
        if stage in ("fit", None) and self._train_features is None:
            self._train_features = self.features("train")

    @property
    def build(self) -> Build:
        """How features are computed, on `device` and in `autocast_dtype`."""
        return Build(
            self.extractor,
            read=read_image,
            batch_size=EXTRACTION_BATCH_SIZE,
            num_workers=self.num_workers,
            device=self.device,
            autocast_dtype=self.extractor.autocast_dtype,
        )

    def features(self, split: Split) -> FeatureCache | StreamedFeatures:
        """Return the features of a split; where it is cached, after computing what is missing."""
        if split == "train" and self._train_features is not None:
            return self._train_features
        return self._source.open(split, self.samples(split), self.build)

    def build_caches(self) -> int:
        """Compute all that the cached splits lack, its size told as one; return their images.

        Raises:
            InputError: If no split is cached, or the features do not fit.
        """
        return self._source.build_all(self._listed, self.build)

    def samples(self, split: Split) -> Sequence[Sample]:
        """Return the samples of a split; `index` in the batches counts in this list."""
        return self._listed[split]

    @cached_property
    def _listed(self) -> dict[Split, PackedSamples]:
        index = index_dataset(self.root, self.layout)
        logger.info("data: %s", index.summary())
        self._dataset_name = index.dataset
        return {
            split: PackedSamples(sample for sample in index.samples if sample.split == split)
            for split in ("train", "test")
        }

    def reference(self, category: str) -> Path:
        """Return the first normal training image of a category, to show beside its defects."""
        return next(s.image for s in self.samples("train") if s.category == category)

    @property
    def extractor(self) -> FeatureExtractor:
        """The frozen backbone, built when first asked for."""
        if self._extractor is None:
            self._extractor = self._build_extractor()
        return self._extractor

    def use_extractor(self, extractor: FeatureExtractor) -> None:
        """Compute features by the extractor of a trained model."""
        self._extractor = extractor

    @property
    def train_features(self) -> FeatureCache | StreamedFeatures:
        """The features of the training images, in the order of `samples("train")`.

        Raises:
            InputError: Before `setup("fit")`.
        """
        if self._train_features is None:
            raise InputError("The training features are ready after setup('fit'); call it first.")
        return self._train_features

    @property
    def statistics(self) -> FeatureStatistics:
        """Statistics of the raw training features; after `setup("fit")`."""
        return self.train_features.statistics

    @property
    def num_channels(self) -> int:
        """Channels of the features."""
        return self.extractor.num_channels

    @cached_property
    def categories(self) -> list[str]:
        """Names of the categories, sorted."""
        return sorted({sample.category for sample in self.samples("train")})

    @property
    def dataset_name(self) -> str:
        """Name of the published data set where it is one, otherwise of the root folder."""
        _ = self._listed
        return self._dataset_name

    def train_dataloader(self) -> ResumableLoader:
        """Return the shuffled batches of all categories, as `FeatureBatch` when on the device."""
        samples, features = self.samples("train"), self.train_features
        numbers = {name: number for number, name in enumerate(self.categories)}
        category = torch.tensor([numbers[sample.category] for sample in samples])
        dataset = (
            CachedFeatures(features, category)
            if isinstance(features, FeatureCache)
            else TrainingPhotographs(samples, self.image_size, category)
        )
        sampler = EpochSampler(
            len(samples),
            seed=self.seed,
            groups=category.numpy() if self.sampling == "balanced" else None,
            **self._share,
        )
        return ResumableLoader(
            dataset,
            sampler,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            pin_memory=self._pin_memory,
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Run the backbone on photographs, whose features are not cached."""
        if isinstance(batch, PhotographBatch):
            features = self.build.features(batch.images)
            return FeatureBatch(features, batch.index, batch.category)
        if isinstance(batch, ImageBatch):
            return ScoringBatch(self.build.features(batch.images), batch.labels)
        return batch

    def test_dataloader(self) -> DataLoader[ImageBatch | ScoringBatch]:
        """Return the test images in the order of `samples("test")`.

        A batch is an `ImageBatch`, or a `ScoringBatch` where features are cached. Each process gets
        its own share of the images.
        """
        samples = self.samples("test")
        features = self.features("test") if "test" in self._source.cached_splits else None
        return FileLoader(
            ImageDataset(
                samples, self.image_size, prepare_mask=self.prepare_mask, features=features
            ),
            batch_size=EXTRACTION_BATCH_SIZE,
            sampler=EvaluationSampler(len(samples), **self._share),
            num_workers=self.num_workers,
            pin_memory=self._pin_memory,
            collate_fn=partial(collate, pinned=self._pin_memory),
            generator=torch.Generator(),  # leave torch's global random state alone
        )

    @property
    def _share(self) -> dict[str, int]:
        trainer = self.trainer
        if trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": trainer.global_rank, "world_size": trainer.world_size}

    @property
    def _pin_memory(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
