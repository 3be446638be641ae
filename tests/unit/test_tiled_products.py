"""Tiles in what Python gives to a model, and in what a trained model learns later."""

import math
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import amdm, data_of, fit, saved

from omiad import Detector
from omiad.errors import InputError
from omiad.forecast import expected_seconds
from omiad.inspection import Inspection
from omiad.learning import learn_products
from omiad.photographs import read_image
from omiad.prediction.photographs import find_photographs
from omiad.prediction.scorer import Scored, Scorer
from omiad.scoring import Scoring
from omiad.updating import calibrate, extend

HIGH, WIDE = 48, 144
"""Sides of the photographs in pixels."""


def write(root: Path, product: str, *, period: float, num: int = 8) -> Path:
    """Write normal photographs of stripes, three times as wide as high."""
    folder = root / product / "train" / "good"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(int(period))
    stripes = 128 + 60 * np.sin(np.arange(WIDE) / period)
    for i in range(num):
        pixels = stripes[:, None] + rng.normal(0, 8, (HIGH, WIDE, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:03}.png")
    return root / product


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three tiles that decides about strips."""
    folder = tmp_path_factory.mktemp("tiled")
    write(folder / "data", "strip", period=4)
    data = data_of(folder / "data", folder, tiles=[1, 3])
    module = amdm(scoring=Scoring(pool_size=4, memory_size=100))
    source = saved(fit(module, data, folder, 2))
    detector = Detector.load(source)
    learn_products(detector, data.features("train"), {"strip": range(8)}, {})
    detector.save(folder / "model.ckpt", like=source)
    return folder / "model.ckpt"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def same(first: Inspection, second: Inspection) -> bool:
    figures = [
        (x.decision, x.category, x.score, x.p_value, x.regions, x.size) for x in (first, second)
    ]
    return figures[0] == figures[1] and np.array_equal(first.anomaly_map, second.anomaly_map)


def test_every_form_of_a_photograph_is_cut_alike(model: Path) -> None:
    detector = Detector.load(model)
    paths = sorted((model.parent / "data/strip/train/good").glob("*.png"))[:3]
    by_path = detector.predict(paths)
    assert {result.anomaly_map.shape for result in by_path} == {(32, 88)}
    found = find_photographs([str(path) for path in paths])
    with closing(Scorer(detector, num_workers=1).results(found)) as results:
        by_command = [result.inspection for _, result in results if isinstance(result, Scored)]
    for path, expected, commanded in zip(paths, by_path, by_command, strict=True):
        array = np.array(Image.open(path))
        for form in (Image.open(path), array, torch.tensor(array)):
            assert same(detector.predict(form), expected)
        assert same(commanded, expected)
        assert expected.size == (WIDE, HIGH)


def test_a_photograph_in_memory_that_is_too_small_for_its_tiles_is_refused(model: Path) -> None:
    detector, small = Detector.load(model), np.zeros((48, 40), np.uint8)
    large = np.zeros((HIGH, WIDE), np.uint8)
    for given, name in ((small, r"photographs\[0\]"), ([large, small], r"photographs\[1\]")):
        with pytest.raises(InputError, match=rf"^{name} has 40 x 48 pixels.*\[1, 3\].*88 x 32"):
            detector.predict(given)  # type: ignore[arg-type]


def test_a_product_is_added_to_a_model_of_tiles(model: Path, tmp_path: Path) -> None:
    nuts = write(tmp_path / "new", "nut", period=9)
    path = extend(str(model), str(nuts), out=str(tmp_path / "extended.ckpt"))
    before, after = Detector.load(model), Detector.load(path)
    assert after.products.names == ["strip", "nut"]
    assert after.added.names == ["nut"]
    [added] = after.added.memories
    assert len(added.patches) == after.scoring.memory_size
    read = partial(read_image, size=32, tiles=(1, 3))
    old, new = (
        torch.stack([read(path) for path in sorted(folder.glob("train/good/*.png"))])
        for folder in (model.parent / "data/strip", nuts)
    )
    assert torch.equal(after(old).anomaly_map, before(old).anomaly_map)
    features = after.extractor.features(new)
    as_nuts = after.score_features(features, category="nut")
    as_strips = after.score_features(features, category="strip")
    assert as_nuts.anomaly_map.shape == (8, 32, 88)
    assert (as_nuts.score < as_strips.score).all()
    alone = [after.score_features(each[None], category="nut").score for each in features]
    assert torch.equal(torch.cat(alone), as_nuts.score)
    assert torch.equal(as_strips.score, before.score_features(features).score)


def test_thresholds_of_a_model_of_tiles_are_set_anew(model: Path, tmp_path: Path) -> None:
    fresh = write(tmp_path / "fresh", "strip", period=4, num=9)
    path = calibrate(str(model), str(fresh), out=str(tmp_path / "calibrated.ckpt"))
    detector = Detector.load(path)
    images = [read_image(each, 32, tiles=(1, 3)) for each in sorted(fresh.glob("*/*/*.png"))]
    expected = detector.score_features(detector.extractor.features(torch.stack(images)))
    normal = detector.products.normal(0)
    assert torch.equal(normal.image.sort().values, expected.score.sort().values)
    peaks = expected.anomaly_map.amax((1, 2))
    assert torch.equal(normal.peak.sort().values, peaks.sort().values)


def test_photographs_that_are_too_small_add_no_product(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "nut" / "train" / "good"
    folder.mkdir(parents=True)
    for i in range(6):
        Image.new("RGB", (40, 40), (i, i, i)).save(folder / f"{i}.png")
    with pytest.raises(InputError, match=r"40 x 40 pixels, too few for --data.tiles \[1, 3\]"):
        extend(str(model), str(folder.parents[1]), out=str(tmp_path / "extended.ckpt"))
    assert not (tmp_path / "extended.ckpt").exists()


def test_a_forecast_knows_tiles(model: Path) -> None:
    extractor = Detector.load(model).extractor
    network = {"network": "omiad.networks.UNet", "scoring": {"memory_size": 100}}
    config = {"model": {"init_args": network}, "data": {"batch_size": 1}}
    counts = {"train": 8, "calibration": 0, "test": 0}
    seconds = expected_seconds(extractor, config, steps=(1, 1), images=counts, products=1)
    assert 0 < seconds < math.inf
