import shutil
from pathlib import Path

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from omiad.data import FeatureDataModule
from omiad.data.images import read_image
from omiad.data.loading import ResumableLoader
from omiad.data.sampling import EpochSampler
from omiad.errors import InputError, MissingInputError
from omiad.features import FeatureExtractor
from omiad.types import FeatureBatch, ScoringBatch

pytestmark = [
    # Lightning's own call; drop when it asks torch's trees as torch now wants.
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
    # The resumed run of a test keeps its checkpoints elsewhere.
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
]


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def make(mvtec_root, cache_dir):
    def make(**kwargs) -> FeatureDataModule:
        network = {"backbone": "test_efficientnet", "weights": "random"}
        sizes = {"image_size": 32, "feature_size": 4, "batch_size": 2}
        paths = {"root": str(mvtec_root), "cache_dir": str(cache_dir)}
        return FeatureDataModule(**{**paths, **network, **sizes, **kwargs})

    return make


def indices(batches) -> list[list[int]]:
    return [batch.index.tolist() for batch in batches]


class Killed(Exception):  # noqa: N818 (not an error)
    pass


class Recorder(LightningModule):
    """Keeps the batches of a run, and stops after so many as if the run were killed."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[FeatureBatch | ScoringBatch] = []
        self.epochs: list[tuple[int, list[int]]] = []
        self.stop_after = stop_after

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)

    def training_step(self, batch: FeatureBatch, batch_idx: int) -> Tensor:
        if len(self.seen) == self.stop_after:
            raise Killed
        assert isinstance(batch, FeatureBatch)
        self.seen.append(batch)
        self.epochs.append((self.current_epoch, batch.index.tolist()))
        return self.weight.sum() * batch.features.float().mean()

    def test_step(self, batch: ScoringBatch, batch_idx: int) -> None:
        self.seen.append(batch)


def trainer(folder: Path, **kwargs) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    given = {"accelerator": "cpu", "devices": 1, "default_root_dir": folder, **quiet, **kwargs}
    return Trainer(**given)


def test_training_batches_hold_cached_features_with_index_and_category(make):
    data = make(batch_size=3)
    loader = data.train_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader) == 2
    for batch in batches:
        assert isinstance(batch, FeatureBatch)
        assert batch.features.shape == (3, data.extractor.num_channels, 4, 4)
        assert batch.features.dtype == torch.half
        for features, index, category in zip(*batch, strict=True):
            assert torch.equal(features, data.features("train")[index])
            assert data.samples("train")[index].category == data.categories[category]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_order_does_not_depend_on_the_number_of_workers(make, num_workers):
    loader = make(batch_size=3, num_workers=num_workers).train_dataloader()
    iterator = iter(loader)
    loader.sampler.set_epoch(3)  # after iter(), as Lightning does on resuming
    expected = EpochSampler(8, seed=0)
    expected.set_epoch(3)
    assert torch.cat([batch.index for batch in iterator]).tolist() == list(expected)[:6]


def test_a_smaller_last_batch_is_kept_only_if_it_is_the_only_one(make):
    loader = make(batch_size=100).train_dataloader()
    assert len(loader) == 1
    assert [len(batch.index) for batch in loader] == [8]


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("given", [0, 1, 3, 4])
def test_a_loader_continues_with_the_remaining_batches(make, given, num_workers):
    def load() -> ResumableLoader:
        loader = make(num_workers=num_workers).train_dataloader()
        loader.sampler.set_epoch(5)
        return loader

    expected = indices(load())
    interrupted, resumed = load(), make().train_dataloader()
    iterator = iter(interrupted)
    for _ in range(given):
        next(iterator)
    resumed.load_state_dict(interrupted.state_dict())
    assert resumed.state_dict() == interrupted.state_dict()
    assert len(resumed) == 4
    assert indices(resumed) == expected[given:]
    assert indices(resumed) == expected  # a second pass is whole


def test_a_position_counts_for_its_epoch_only(make):
    loader = make().train_dataloader()
    loader.load_state_dict({**loader.state_dict(), "batches": 3})
    loader.sampler.set_epoch(1)
    assert len(list(loader)) == 4


def test_a_position_within_an_epoch_of_other_batches_is_refused(make):
    loader = make().train_dataloader()
    state = {**loader.state_dict(), "batches": 1}
    with pytest.raises(InputError, match=r"batch_size 5, but this run has 2"):
        loader.load_state_dict({**state, "batch_size": 5})
    loader.load_state_dict({**state, "batches": 0, "batch_size": 5})
    with pytest.raises(InputError, match="balanced 0"):
        make(sampling="balanced").train_dataloader().load_state_dict(state)


# Each case stops a run of 3 epochs of 4 batches after so many of them.
@pytest.mark.parametrize(
    ("stop_after", "length", "num_workers"),
    [
        (1, {"max_epochs": 3}, 1),
        (4, {"max_epochs": 3}, 0),
        (6, {"max_epochs": 3}, 1),
        (3, {"max_steps": 12}, 0),
        (8, {"max_steps": 12}, 1),
        (11, {"max_steps": 12}, 0),
    ],
)
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(
    make, tmp_path, stop_after, length, num_workers
):
    def fit(folder: str, workers: int = 0, stop_after: int | None = None, ckpt_path=None):
        recorder = Recorder(stop_after)
        every_batch = ModelCheckpoint(tmp_path / folder, "last", every_n_train_steps=1)
        trainer(tmp_path, callbacks=[every_batch], **length).fit(
            recorder, datamodule=make(num_workers=workers), ckpt_path=ckpt_path, weights_only=True
        )
        return recorder.epochs

    whole = fit("whole")
    assert len(whole) == 12
    with pytest.raises(Killed):
        fit("interrupted", num_workers, stop_after)
    resumed = fit("resumed", num_workers, ckpt_path=tmp_path / "interrupted" / "last.ckpt")
    assert whole[:stop_after] + resumed == whole


def test_a_run_resumed_at_the_end_of_an_epoch_sees_the_next_epochs(make, tmp_path):
    def fit(folder: str, epochs: int, ckpt_path: Path | None = None) -> list:
        recorder = Recorder()
        every_epoch = ModelCheckpoint(tmp_path / folder, "last")
        trainer(tmp_path, max_epochs=epochs, callbacks=[every_epoch]).fit(
            recorder, datamodule=make(), ckpt_path=ckpt_path, weights_only=True
        )
        return recorder.epochs

    first = fit("first", 2)
    assert first + fit("resumed", 4, tmp_path / "first" / "last.ckpt") == fit("whole", 4)


def test_properties_describe_the_data(make):
    data = make(stages=[0, 1])
    assert data.categories == ["bottle", "cable"]
    assert data.dataset_name == "tiny"
    assert data.statistics.mean.shape == (40,)
    assert data.extractor is data.extractor
    assert data.hparams["stages"] == [0, 1]


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("32-true", "float32"), ("bf16-mixed", "bfloat16"), ("16-mixed", "float16")],
)
def test_the_extractor_gets_the_precision_of_the_trainer(make, tmp_path, precision, expected):
    data = make()
    data.trainer = trainer(tmp_path)
    data.trainer._accelerator_connector.precision_plugin.precision = precision  # no GPU needed
    assert data.extractor.config["precision"] == expected
    assert make().extractor.config["precision"] == "float32"
    given = make(precision="float32")
    assert given.build_extractor(precision).config["precision"] == "float32"


def test_a_test_uses_the_extractor_it_is_given_and_builds_none(make, tmp_path):
    given = FeatureExtractor("test_resnet", weights="random", image_size=64, feature_size=4)
    tester, data = Recorder(), make(weights="nowhere.pth")
    data.setup("test")
    data.use_extractor(given)
    trainer(tmp_path).test(tester, datamodule=data, verbose=False)
    assert data.extractor is given
    expected = given.features(read_image(data.samples("test")[3].image, 64)[None])[0]
    torch.testing.assert_close(tester.seen[0].features[3], expected)


def test_training_features_of_another_extractor_are_not_kept(make):
    data = make()
    features = data.features("train")
    data.use_extractor(data.extractor)
    assert data.features("train") is features
    data.use_extractor(make(grid="average").extractor)
    assert not torch.equal(data.features("train")[0], features[0])


def test_the_rank_and_number_of_processes_come_from_the_trainer(make, tmp_path, monkeypatch):
    data = make()
    data.trainer = trainer(tmp_path)
    monkeypatch.setattr(Trainer, "world_size", 2)
    monkeypatch.setattr(Trainer, "global_rank", 1)
    loader = data.train_dataloader()
    assert len(loader) == 2
    seen = torch.cat([batch.index for batch in loader])
    assert seen.tolist() == list(EpochSampler(8, seed=0))[1::2]


def test_without_a_cache_the_backbone_runs_to_the_same_numbers(make, tmp_path):
    def batches_of(**kwargs) -> list[FeatureBatch]:
        recorder = Recorder()
        keep_none = {"enable_checkpointing": False, "max_epochs": 2}
        trainer(tmp_path, **keep_none).fit(recorder, datamodule=make(batch_size=3, **kwargs))
        return recorder.seen

    elsewhere = tmp_path / "cache"
    cached, streamed = batches_of(), batches_of(cache=False, cache_dir=str(elsewhere))
    assert len(cached) == len(streamed) == 4
    for a, b in zip(cached, streamed, strict=True):
        assert all(map(torch.equal, a, b))
    assert not list(elsewhere.glob("*/*.rows"))


def test_balanced_batches_show_every_category_as_often(make, mvtec_root, tmp_path):
    root = shutil.copytree(mvtec_root, tmp_path / "uneven")
    for i in (2, 3):
        (root / f"cable/train/good/00{i}.png").unlink()
    loader = make(root=str(root), sampling="balanced").train_dataloader()
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        seen = torch.cat([batch.category for batch in loader])
        assert sorted(seen.tolist()) == [0, 0, 1, 1]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_features_of_test_images_are_the_same_cached_or_streamed(
    make, tmp_path, monkeypatch, num_workers
):
    monkeypatch.setattr("omiad.data.datamodule.BATCH_SIZE", 5)

    def batches_of(cache, batch_size) -> list[ScoringBatch]:
        tester, folder = Recorder(), tmp_path / str(cache)
        options = {"batch_size": batch_size, "num_workers": num_workers, "cache_dir": str(folder)}
        trainer(tmp_path).test(tester, datamodule=make(cache=cache, **options), verbose=False)
        rows = sum(len(path.read_text().splitlines()) for path in folder.glob("*/*.index"))
        assert rows == (12 if cache == "all" else 0)
        return tester.seen

    first = batches_of("all", 5)
    assert torch.cat([batch.labels.index for batch in first]).tolist() == list(range(12))
    assert (len(first), first[0].features.dtype) == (3, torch.half)
    for others in (batches_of("all", 5), batches_of(True, 5), batches_of(False, 3)):
        for (features, labels), other in zip(first, others, strict=True):
            assert torch.equal(features, other.features)
            assert all(map(torch.equal, labels, other.labels))


def test_a_cached_test_split_is_read_without_opening_a_photograph(make, tmp_path, monkeypatch):
    data = make(cache="all", cache_dir=str(tmp_path))
    assert data.build_caches() == 20

    def refuse(path: Path, size: int) -> Tensor:
        raise AssertionError(f"opened {path}")

    monkeypatch.setattr("omiad.data.images.read_image", refuse)
    monkeypatch.setattr("omiad.data.datamodule.read_image", refuse)
    (batch,) = data.test_dataloader()
    assert batch.features.shape == (12, data.extractor.num_channels, 4, 4)
    assert batch.labels.masks.any()
    assert len(list(data.train_dataloader())) == 4


def test_the_layout_can_be_given(make, mvtec_root):
    assert len(make(layout="folder").samples("train")) == 8
    with pytest.raises(InputError, match="No splits of Real-IAD"):
        make(layout="realiad").samples("train")


def test_a_missing_root_and_missing_weights_are_named_at_setup(make, tmp_path):
    with pytest.raises(MissingInputError, match="nowhere"):
        make(root=str(tmp_path / "nowhere")).setup("fit")
    with pytest.raises(MissingInputError, match=r"nowhere\.pth"):
        make(weights="nowhere.pth").setup("fit")


def test_an_empty_test_split_is_named(make, mvtec_root, tmp_path):
    root = tmp_path / "data"
    for category in ("bottle", "cable"):
        shutil.copytree(mvtec_root / category / "train", root / category / "train")
    data = make(root=str(root))
    data.setup("fit")
    with pytest.raises(InputError, match=r"data' has no test images"):
        data.setup("test")


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"num_workers": -1}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(make, wrong):
    with pytest.raises(InputError, match=rf"--data\.{next(iter(wrong))} must lie in"):
        make(**wrong)


class Visitor(LightningModule):
    """Notes which images its process tests."""

    def test_step(self, batch: ScoringBatch, batch_idx: int) -> None:
        with Path(self.trainer.default_root_dir, f"rank{self.global_rank}").open("a") as file:
            file.writelines(f"{i}\n" for i in batch.labels.index.tolist())


# Lightning's advice, for samplers that repeat images.
@pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_processes_test_every_image_exactly_once(make, tmp_path):
    several = trainer(tmp_path, strategy="ddp_fork", devices=5)
    several.test(Visitor(), datamodule=make(), verbose=False)
    seen = [path.read_text().split() for path in sorted(tmp_path.glob("rank*"))]
    assert len(seen) == 5
    assert sorted(int(i) for share in seen for i in share) == list(range(12))
