"""What a trained model learns later: thresholds from fresh photographs, and new products."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import write_mvtec
from tiny import Data, Fit, amdm, data_of, saved, trainer_of

from omiad import Detector
from omiad.errors import InputError
from omiad.learning import add_products, learn_products
from omiad.modules import DetectionModule
from omiad.products import description
from omiad.scoring import Scoring
from omiad.updating import calibrate, extend

Photographs = Callable[..., Path]

IN_TURNS = [0, 4, 1, 5, 2, 3]
"""Six photographs in the order in which the folds score them."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def photographs(tmp_path: Path) -> Photographs:
    """Write so many normal photographs of products to a new folder of theirs."""

    def write(*products: str, num: int = 6, bad: int = 0) -> Path:
        root = tmp_path / f"photographs of {len(list(tmp_path.iterdir()))}"
        return normal_photographs(root, *products, num=num, bad=bad)

    return write


@pytest.fixture(scope="module")
def decided(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decided")
    photographs = normal_photographs(folder / "photographs", "bottle", "cable")
    return calibrate(str(teacher), str(photographs), out=str(folder / "model.ckpt"))


@pytest.fixture
def model(decided: Path, tmp_path: Path) -> Path:
    """A model that decides about bottles and cables."""
    return Path(shutil.copy(decided, tmp_path))


def normal_photographs(root: Path, *products: str, num: int = 6, bad: int = 0) -> Path:
    counts = {"num_train": num, "num_good": 0, "num_bad": bad}
    write_mvtec(root, np.random.default_rng(9), categories=products, **counts)
    return root


def differing(one: Detector, other: Detector) -> set[str]:
    """Return the names of the weights that are not the same bit for bit."""
    mine, theirs = one.state_dict(), other.state_dict()
    same = {k for k in mine.keys() & theirs.keys() if torch.equal(mine[k], theirs[k])}
    return {*mine, *theirs} - same


def scored(detector: Detector, features: Iterable[torch.Tensor]) -> torch.Tensor:
    return detector.score_features(torch.stack(list(features))).score


def test_a_model_of_a_fit_gets_its_first_thresholds(
    teacher: Path, photographs: Photographs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shutil.copy(teacher, tmp_path / "net.ckpt")
    path = calibrate(str(source), str(photographs("bottle", "cable", bad=2)), false_alarms=0.2)
    assert path == tmp_path / "net.calibrated.ckpt"
    assert source.read_bytes() == teacher.read_bytes()
    detector, before = Detector.load(path), Detector.load(teacher)
    assert detector.products.names == ["bottle", "cable"]
    assert detector.products.counts.tolist() == [6, 6]  # the defects are left out
    assert detector.false_alarms == 0.2
    assert all(name.startswith("products.") for name in differing(detector, before))
    printed = capsys.readouterr().out
    for number in (
        "bottle",
        "6",
        "20 %",
        "14 %",
        f"{detector.products.thresholds(0.2)[0].image:.4g}",
    ):
        assert number in printed


def test_fresh_photographs_replace_what_is_known_of_their_own_product(
    model: Path, photographs: Photographs
) -> None:
    path = calibrate(str(model), str(photographs("cable", num=9) / "cable"))
    before, after = Detector.load(model).products, Detector.load(path).products
    assert after.names == ["bottle", "cable"]
    assert after.counts.tolist() == [6, 9]
    assert torch.equal(after.normal(0).image, before.normal(0).image)
    assert torch.equal(after.limits[0], before.limits[0])
    assert not torch.equal(after.centres[1], before.centres[1])


def test_a_product_is_added_and_the_others_keep_every_score(
    model: Path, photographs: Photographs, data: Data
) -> None:
    path = extend(str(model), str(photographs("nut", num=8) / "nut"))
    before, after = Detector.load(model), Detector.load(path)
    assert after.products.names == ["bottle", "cable", "nut"]
    assert all(name.startswith(("products.", "added.")) for name in differing(after, before))
    assert torch.equal(after.products.limits[:2], before.products.limits)
    old = data().features("train")
    assert torch.equal(scored(after, old), scored(before, old))


def test_a_product_joins_a_memory_of_each_product(
    fit: Fit, photographs: Photographs, data: Data
) -> None:
    scoring = Scoring(pool_size=4, memory_size=40, memory="product")
    source = saved(fit(amdm(scoring=scoring), 1))
    decided = calibrate(str(source), str(photographs("bottle", "cable")))
    path = extend(str(decided), str(photographs("nut", num=8) / "nut"))
    before, after = Detector.load(decided), Detector.load(path)
    assert after.product_memory is not None
    assert after.product_memory.names == ["bottle", "cable", "nut"]
    assert all(
        name.startswith(("products.", "product_memory.")) for name in differing(after, before)
    )
    bottles = torch.stack(list(data().features("train"))[:4])
    scores = [each.score_features(bottles, category="bottle").score for each in (before, after)]
    assert torch.equal(*scores)


def test_a_test_of_an_added_product_keeps_what_was_added(
    model: Path,
    photographs: Photographs,
    data: Data,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = photographs("nut", num=8, bad=2)
    path = str(extend(str(model), str(root)))
    module, nuts = DetectionModule.load(path), data_of(root, tmp_path)
    trainer_of(tmp_path, 1).test(module, datamodule=nuts, verbose=False)
    assert not differing(module.detector, Detector.load(path))
    assert "was not in training" not in caplog.text
    other = DetectionModule.load(path, num_steps=2)  # the memory would be filled anew
    with pytest.raises(InputError, match=r"'nut'.*omiad extend"):
        trainer_of(tmp_path, 1).test(other, datamodule=data(), verbose=False)


def test_added_patches_count_for_their_own_product_alone(
    model: Path, photographs: Photographs, tmp_path: Path
) -> None:
    root = photographs("nut", num=8)
    detector = Detector.load(extend(str(model), str(root)))
    nuts = torch.stack(list(data_of(root, tmp_path).features("train")))
    as_nuts = detector.score_features(nuts, category="nut")
    as_bottles = detector.score_features(nuts, category="bottle")
    assert as_nuts.anomaly_map.abs().max() < 1e-3  # each patch finds itself
    assert torch.equal(as_bottles.score, Detector.load(model).score_features(nuts).score)
    assert (detector.products.normal(2).image > as_nuts.score + 1e-3).all()  # none found itself
    recognised = detector.products.recognise(description(nuts)).tolist()
    shown = [None if number < 0 else detector.products.names[number] for number in recognised]
    alone = [detector.score_features(x[None], category=s) for x, s in zip(nuts, shown, strict=True)]
    assert torch.equal(
        torch.cat([each.score for each in alone]), detector.score_features(nuts).score
    )


def test_photographs_kept_out_set_the_threshold_of_an_added_product(
    model: Path, generator: torch.Generator
) -> None:
    detector = Detector.load(model)
    features = torch.randn(14, detector.extractor.num_channels, 8, 8, generator=generator)
    add_products(detector, features, {"nut": [*range(8)]}, {"nut": [*range(8, 14)]})
    kept = detector.score_features(features[8:], category="nut")
    assert torch.equal(detector.products.normal(2).image, kept.score)
    assert torch.equal(detector.products.normal(2).peak, kept.anomaly_map.amax((1, 2)))


def test_without_a_memory_an_added_product_gets_a_threshold(
    teacher: Path, generator: torch.Generator
) -> None:
    detector = Detector.load(teacher, scoring=vars(Scoring(pool_size=4)))
    features = torch.randn(12, detector.extractor.num_channels, 8, 8, generator=generator)
    learn_products(detector, features, {"bottle": [*range(6)]}, {})
    add_products(detector, features, {"nut": [*range(6, 12)]}, {})
    assert not detector.added.names
    order = [*IN_TURNS, *(6 + i for i in IN_TURNS)]
    assert torch.equal(detector.products.images, detector.score_features(features).score[order])


def test_what_cannot_be_calibrated_or_added_is_a_sentence_and_leaves_nothing(
    model: Path, teacher: Path, photographs: Photographs, tmp_path: Path
) -> None:
    known, new, one = photographs("cable"), photographs("nut"), photographs("pin", num=1)
    alike, broken = photographs("Cable"), photographs("screw")
    for path in broken.rglob("*.png"):
        path.write_bytes(b"no image")
    empty = photographs("bottle", num=0, bad=2)
    wrong: list[tuple[Callable[..., Path], Path, Path, dict[str, object], str]] = [
        (calibrate, model, tmp_path / "nowhere", {}, "nowhere"),
        (calibrate, model, new, {}, "'nut'.*'bottle', 'cable'.*omiad extend"),
        (calibrate, teacher, new, {}, "'nut'.*'bottle', 'cable'.*omiad extend"),
        (calibrate, tmp_path / "m.onnx", known, {}, "m.onnx. is an export"),
        (calibrate, model, empty, {}, "no normal photographs"),
        (calibrate, model, broken.rename(tmp_path / "b") / "screw", {}, "'screw'"),
        (calibrate, model, known, {"false_alarms": 0.01}, "'cable': 6 normal.*99"),
        (calibrate, model, photographs("bottle", num=9), {"false_alarms": 0.1}, "'cable': 6"),
        (calibrate, model, known, {"false_alarms": 2.0}, "between 0 and 1"),
        (calibrate, model, known, {"out": str(model)}, "already exists.*--out"),
        (extend, model, known, {}, "knows 'cable' already.*omiad calibrate"),
        (extend, model, alike, {}, "knows 'Cable' already"),
        (extend, model, one, {}, r"'pin' .*\(1\)"),
        (extend, model, tmp_path / "b", {}, "6 files cannot be used"),
        (extend, model, tmp_path, {}, "layout"),
        (extend, model, new, {"out": str(tmp_path)}, "already exists"),
        (extend, teacher, new, {}, "omiad calibrate"),
    ]
    before = {path for path in tmp_path.rglob("*") if ".cache" not in path.parts}
    for command, ckpt, photos, options, said in wrong:
        with pytest.raises(InputError, match=f"(?s){said}"):
            command(str(ckpt), str(photos), **options)
    assert {path for path in tmp_path.rglob("*") if ".cache" not in path.parts} == before


def test_a_model_without_a_complete_memory_is_refused(
    teacher: Path, photographs: Photographs, tmp_path: Path
) -> None:
    detector, path = Detector.load(teacher), tmp_path / "early.ckpt"
    detector.calibrated_for = f"{detector.calibrated_for} briefly"
    detector.save(path, like=teacher)
    with pytest.raises(InputError, match="middle of a run"):
        calibrate(str(path), str(photographs("cable")))
