"""Tiles: the geometry, and a model that trains on tiles, scores with them and keeps them."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import Data, amdm, data_of, fit, saved, trainer_of

from omiad import Detector
from omiad.checkpoint import CHECKPOINT_KEY, read_checkpoint, seal, write_checkpoint
from omiad.data.check.facts import Facts
from omiad.data.check.pixels import tiles as tiles_advised
from omiad.errors import InputError
from omiad.features import FeatureExtractor
from omiad.learning import learn_products
from omiad.modules import DecoderModule, DetectionModule
from omiad.photographs import read_image
from omiad.scoring import Scoring
from omiad.tiling import Tiling, recommended
from omiad.types import Sample

GRIDS = [(1, 3), (2, 2), (3, 1), (4, 5)]
HIGH, WIDE, SPOT = 48, 144, 10
"""Sides of the photographs, and of their defects, in pixels."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Build data modules of striped photographs three times as wide as high, one tile in three."""
    folder = tmp_path_factory.mktemp("wide")
    rng = np.random.default_rng(0)
    stripes = 128 + 60 * np.sin(np.arange(WIDE) / 4)
    for part, count in (("train/good", 8), ("test/good", 2), ("test/hole", 3)):
        (folder / "data" / "strip" / part).mkdir(parents=True)
        for i in range(count):
            noise = rng.normal(0, 8, (HIGH, WIDE, 3))
            pixels = (stripes[:, None] + noise).clip(0, 255).astype(np.uint8)
            if part == "test/hole":
                mask = np.zeros((HIGH, WIDE), np.uint8)
                mask[box_of(i)] = 255
                pixels[mask > 0] = 0
                truth = folder / "data" / "strip" / "ground_truth" / "hole"
                truth.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(truth / f"{i:03}_mask.png")
            Image.fromarray(pixels).save(folder / "data" / "strip" / part / f"{i:03}.png")
    return partial(data_of, folder / "data", folder, tiles=[1, 3])


def box_of(number: int) -> tuple[slice, slice]:
    """Return where the defect of a photograph lies: at the left, in an overlap, at the right."""
    left, top = (8, 43, 120)[number], (30, 12, 20)[number]
    return slice(top, top + SPOT), slice(left, left + SPOT)


@pytest.fixture(scope="module")
def checkpoint(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    module = amdm(scoring=Scoring(pool_size=4, blur_sigma=2, memory_size=10_000))
    return saved(fit(module, data(), tmp_path_factory.mktemp("model"), 4))


def canvases(data: Data, split: str) -> torch.Tensor:
    samples = data().samples(split)  # type: ignore[arg-type]
    return torch.stack([read_image(sample.image, 32, tiles=(1, 3)) for sample in samples])


@pytest.mark.parametrize("tiles", GRIDS)
def test_tiles_that_are_cut_are_stitched_to_the_same_picture(tiles, generator) -> None:
    tiling = Tiling(tiles, 32)
    height, width = tiling.canvas
    assert (height, width) == (28 * tiles[0] + 4, 28 * tiles[1] + 4)
    pictures = torch.rand(2, 3, height, width, generator=generator)
    cut = tiling.cut(pictures)
    assert cut.shape == (2 * tiling.count, 3, 32, 32)
    torch.testing.assert_close(tiling.stitch(cut), pictures, atol=1e-6, rtol=0)


@pytest.mark.parametrize("tiles", GRIDS)
def test_the_weights_of_all_tiles_sum_to_one_everywhere(tiles) -> None:
    tiling = Tiling(tiles, 32)
    flat = tiling.stitch(torch.ones(tiling.count, 1, 32, 32, dtype=torch.float64))
    torch.testing.assert_close(flat, torch.ones_like(flat), atol=1e-14, rtol=0)


def test_a_map_has_no_seam_where_tiles_disagree() -> None:
    tiling = Tiling((1, 2), 64)
    levels = torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 1, 64, 64)
    line = tiling.stitch(levels)[0, 0, 0]
    assert line[:56].eq(0).all()
    assert line[64:].eq(1).all()
    assert (line.diff() >= 0).all()
    assert line.diff().max() < 0.2  # the smooth step of an overlap of 8 pixels


def test_a_spot_in_an_overlap_appears_once_and_where_it_is() -> None:
    tiling = Tiling((2, 2), 32)
    picture = torch.zeros(1, 1, *tiling.canvas)
    picture[..., 29:31, 30] = 1  # in all four tiles
    torch.testing.assert_close(tiling.stitch(tiling.cut(picture)), picture, atol=1e-6, rtol=0)


@pytest.mark.parametrize("tiles", GRIDS)
def test_a_mosaic_holds_the_features_of_each_tile_at_its_place(tiles, generator) -> None:
    tiling = Tiling(tiles, 32)
    features = torch.rand(2 * tiling.count, 5, 4, 4, generator=generator)
    mosaic = tiling.join(features)
    assert mosaic.shape == (2, 5, 4 * tiles[0], 4 * tiles[1])
    assert torch.equal(tiling.split(mosaic), features)
    row, column = divmod(tiling.count - 1, tiles[1])
    last = mosaic[1, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
    assert torch.equal(last, features[-1])


def test_one_tile_leaves_everything_as_it_is(generator) -> None:
    x = torch.rand(2, 3, 32, 32, generator=generator)
    tiling = Tiling((1, 1), 32)
    assert all(f(x) is x for f in (tiling.cut, tiling.stitch, tiling.split, tiling.join))
    assert tiling.canvas == (32, 32)
    extractor = FeatureExtractor("test_efficientnet", weights="random", image_size=32)
    assert "tiles" not in extractor.config  # so that older checkpoints and caches stay valid


@pytest.mark.parametrize("tiles", [[0, 1], [2, -1], [9, 9]])
def test_a_grid_out_of_range_is_refused(tiles) -> None:
    with pytest.raises(InputError, match=rf"at most 64 tiles.*\[{tiles[0]}, {tiles[1]}\]"):
        Tiling.of(tiles, 32)


def test_a_grid_has_rows_and_columns() -> None:
    with pytest.raises(InputError, match=r"two numbers, rows and columns, but got \[3\]"):
        Tiling.of([3], 32)


def test_a_photograph_that_is_too_small_for_its_tiles_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.png"
    Image.new("RGB", (60, 20)).save(path)
    read_image(path, 32, tiles=(1, 3))  # enlarged by less than two
    with pytest.raises(InputError, match=r"small\.png' has 60 x 20 pixels.*\[2, 2\].*60 x 60"):
        read_image(path, 32, tiles=(2, 2))


@pytest.mark.parametrize(
    ("size", "tiles"),
    [
        *(((1024, 1024), (1, 1)), ((1500, 1000), (1, 1)), ((3000, 1000), (1, 3))),
        *(((1000, 1800), (2, 1)), ((8192, 8192), (5, 5)), ((90_000, 2000), (2, 32))),
        *(((30_000, 30_000), (8, 8)), ((5000, 4000), (3, 3)), ((600, 200), (1, 1))),
    ],
)
def test_the_recommended_grid_keeps_aspect_and_detail(size, tiles) -> None:
    assert recommended(*size) == tiles


def test_the_check_of_data_recommends_a_grid_by_the_usual_size(tmp_path: Path) -> None:
    sample = Sample(tmp_path / "a.png", (), "strip", "good", "train")
    sizes = [(3000, 1000), (3000, 1000), (500, 500)]
    [fault] = list(tiles_advised([Facts(sample, (), size) for size in sizes]))
    assert (fault.level, fault.where) == ("note", "strip")
    assert "3000 x 1000 pixels" in fault.what
    assert "--data.tiles [1, 3] keeps more, and takes 3 times as long" in fault.what
    assert not list(tiles_advised([Facts(sample, (), (1024, 1024)), Facts(sample, ())]))


def test_the_extractor_takes_canvases(data: Data) -> None:
    extractor = data().build_extractor(None)
    assert extractor.mosaic_size == (8, 24)
    with pytest.raises(InputError, match=r"\(B, 3, 32, 88\), but got uint8 of \(1, 3, 32, 32\)"):
        extractor.features(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize("cache", [True, False])
def test_an_epoch_has_every_tile_of_every_photograph_once(data: Data, cache: bool) -> None:
    module = data(cache=cache, batch_size=8)
    batches = [module.on_after_batch_transfer(b, 0) for b in module.train_dataloader()]
    index = torch.cat([batch.index for batch in batches])
    assert sorted(index.tolist()) == list(range(8 * 3))
    of_tiles = module.extractor.tile_features(Tiling((1, 3), 32).cut(canvases(data, "train")))
    assert torch.equal(torch.cat([batch.features for batch in batches]), of_tiles[index])
    assert module.statistics.mean.allclose(of_tiles.double().mean((0, 2, 3)))


def test_a_score_does_not_depend_on_the_batch(data: Data, checkpoint: Path) -> None:
    detector = Detector.load(checkpoint)
    images = canvases(data, "test")
    together = detector(images)
    assert together.anomaly_map.shape == (5, 32, 88)
    for image, score, drawn in zip(images, *together, strict=True):
        alone = detector(image[None])
        assert torch.equal(alone.score[0], score)
        assert torch.equal(alone.anomaly_map[0], drawn)
    assert together.score[2:].min() > together.score[:2].max()


def test_boxes_lie_where_the_defects_are(data: Data, checkpoint: Path, tmp_path: Path) -> None:
    detector, module = Detector.load(checkpoint), data()
    module.use_extractor(detector.extractor)
    learn_products(detector, module.features("train"), {"strip": range(8)}, {})
    path = tmp_path / "model.ckpt"
    detector.save(path, like=checkpoint)
    images = canvases(data, "test")
    loaded = Detector.load(path)
    found = loaded.inspect(images, sizes=[(WIDE, HIGH)] * 5, category="strip", false_alarms=0.2)
    assert [each.decision for each in found[2:]] == ["defect"] * 3
    for number, inspection in enumerate(found[2:]):
        rows, columns = box_of(number)
        middle = columns.start + SPOT // 2, rows.start + SPOT // 2
        left, top, right, bottom = inspection.regions[0].box
        assert left <= middle[0] <= right < left + WIDE / 2  # a tile is all that a cell sees
        assert top <= middle[1] <= bottom
        row, column = np.unravel_index(inspection.anomaly_map.argmax(), (32, 88))
        assert abs(column * WIDE / 88 - middle[0]) < SPOT
        assert abs(row * HIGH / 32 - middle[1]) < 2 * SPOT
        assert inspection.mask().shape == (HIGH, WIDE)
        assert inspection.mask()[rows, columns].mean() > 0.5


def test_a_test_takes_the_tiles_of_the_checkpoint_and_refuses_others(
    data: Data, checkpoint: Path, tmp_path: Path
) -> None:
    assert read_checkpoint(checkpoint)[CHECKPOINT_KEY]["detector"]["extractor"]["tiles"] == [1, 3]
    module = data()
    trainer_of(tmp_path, 1).test(DetectionModule.load(str(checkpoint)), module, verbose=False)
    batch = next(iter(module.test_dataloader()))
    assert batch.labels.masks.shape == (5, 88, 88)  # the longer side of the canvas
    with pytest.raises(InputError, match=r"--data.tiles is \[1, 1\].*trained with \[1, 3\]"):
        trainer_of(tmp_path, 1).test(
            DetectionModule.load(str(checkpoint)), data(tiles=None), verbose=False
        )


def test_a_decoder_learns_from_tiles_and_draws_the_canvas(
    data: Data, checkpoint: Path, tmp_path: Path
) -> None:
    module = DecoderModule(str(checkpoint), width=8)
    fit(module, data(), tmp_path, 1)
    drawn = module.detector.picture(module.detector.extractor.features(canvases(data, "test")))
    assert drawn is not None
    assert drawn.shape == (5, 3, 32, 88)


def test_a_stage_with_other_tiles_than_its_teacher_is_refused(
    data: Data, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"--data.tiles is \[1, 1\].*trained with \[1, 3\]"):
        fit(DecoderModule(str(checkpoint), width=8), data(tiles=[1, 1]), tmp_path, 1)


@pytest.mark.parametrize(
    ("tiles", "side"),
    [([0, 3], 32), ([65, 1], 32), ([9, 9], 32), ([8, 8], 8192), ([1, 3, 1], 32), ((1, 3), 32)],
)
def test_a_checkpoint_with_impossible_tiles_is_refused(
    checkpoint: Path, tmp_path: Path, tiles: object, side: int
) -> None:
    content = read_checkpoint(checkpoint)
    content[CHECKPOINT_KEY]["detector"]["extractor"] |= {"tiles": tiles, "image_size": side}
    seal(content)
    write_checkpoint(tmp_path / "other.ckpt", content)
    with pytest.raises(InputError, match="tiles"):
        Detector.load(tmp_path / "other.ckpt")
