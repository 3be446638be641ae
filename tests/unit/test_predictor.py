"""Python decides like the command, to the last bit, in whatever form a photograph comes."""

import math
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from omiad import Detector
from omiad.errors import InputError
from omiad.inspection import Inspection
from omiad.photographs import read_photograph
from omiad.prediction.photographs import find_photographs
from omiad.prediction.scorer import Scored, Scorer
from omiad.products import NormalScores


@pytest.fixture(scope="module")
def detector(deciding: Path) -> Detector:
    return Detector.load(deciding / "model.ckpt")


@pytest.fixture(scope="module")
def photographs(deciding: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of every kind with good and defective photographs."""
    folder, exif = tmp_path_factory.mktemp("kinds"), Image.Exif()
    exif[0x0112] = 6
    shutil.copy(deciding / "photo.png", folder)
    colour = Image.open(deciding / "hole.png").resize((48, 40))
    grey = colour.convert("L")
    colour.save(folder / "colour.png")
    colour.save(folder / "rotated.jpg", exif=exif)
    colour.convert("CMYK").save(folder / "cmyk.tif")
    colour.convert("RGBA").save(folder / "alpha.png")
    colour.quantize(64).save(folder / "palette.png")
    grey.save(folder / "grey.png")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / "wide.png")
    return sorted(folder.iterdir())


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def pixels(path: Path) -> np.ndarray:
    upright = ImageOps.exif_transpose(opened(path))
    return np.asarray(upright.convert("RGB") if upright.mode in ("P", "CMYK") else upright)


def same(first: Inspection, second: Inspection) -> bool:
    """Return whether two results are equal to the last bit."""
    figures = [
        (x.decision, x.category, x.score, x.p_value, x.threshold, x.regions, x.size)
        for x in (first, second)
    ]
    return figures[0] == figures[1] and np.array_equal(first.anomaly_map, second.anomaly_map)


def test_a_photograph_has_one_result_in_whatever_form_it_comes(
    detector: Detector, photographs: list[Path]
) -> None:
    by_path = detector.predict(photographs)
    assert {result.decision for result in by_path} >= {"ok", "defect"}
    for path, expected in zip(photographs, by_path, strict=True):
        array = pixels(path)
        forms: list[Any] = [opened(path), array, torch.tensor(array)]
        for form in forms:
            assert same(detector.predict(form), expected), path.name
    frame = pixels(photographs[0].with_name("colour.png"))[..., ::-1]
    expected = detector.predict(photographs[0].with_name("colour.png"))
    assert same(detector.predict(frame, color="bgr"), expected)
    assert not same(detector.predict(frame), expected)


def test_a_result_depends_neither_on_the_batch_nor_on_its_size(
    detector: Detector, photographs: list[Path]
) -> None:
    alone = [detector.predict(path) for path in photographs]
    for size in (1, 3):
        together = detector.predict(photographs[::-1], batch_size=size)
        assert all(map(same, alone, together[::-1]))
        one_by_one = detector.predict(iter(photographs), batch_size=size)
        assert all(map(same, alone, one_by_one))


def test_the_command_finds_the_same(detector: Detector, photographs: list[Path]) -> None:
    found = find_photographs([str(photographs[0].parent)])
    with closing(Scorer(detector, batch_size=4, num_workers=2).results(found)) as results:
        for photograph, result in results:
            assert isinstance(result, Scored)
            assert same(result.inspection, detector.predict(photograph.path))


def test_pictures_have_the_size_of_the_photograph(
    detector: Detector, photographs: list[Path]
) -> None:
    results = dict(zip(photographs, detector.predict(photographs), strict=True))
    for path, result in results.items():
        size = {"photo.png": (32, 32), "rotated.jpg": (40, 48)}.get(path.name, (48, 40))
        assert result.size == read_photograph(path, 8)[1] == size
        assert result.mask().shape == size[::-1]
        assert result.mask().any() == (result.decision == "defect")
        for region in result.regions:
            left, top, right, bottom = region.box
            assert 0 <= left < right <= size[0]
            assert 0 <= top < bottom <= size[1]


def test_the_caller_may_compute_in_its_own_way(detector: Detector, photographs: list[Path]) -> None:
    expected = detector.predict(photographs)
    with torch.inference_mode():
        assert all(map(same, detector.predict(photographs), expected))
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype):
            assert all(map(same, detector.predict(photographs), expected))
    with torch.enable_grad():
        image = torch.tensor(pixels(photographs[0])).float().div(255).requires_grad_()
        detector.predict(image)
        assert image.grad is None
    with ThreadPoolExecutor(4) as pool:
        assert all(map(same, pool.map(detector.predict, photographs), expected))


def test_other_settings_than_those_of_the_thresholds_give_no_decision(
    detector: Detector, deciding: Path
) -> None:
    changed = {**vars(detector.scoring), "pool_size": 1}
    for change in ({"scoring": changed}, {"num_steps": 2}, {"t_init": 300}):
        other = Detector.load(deciding / "model.ckpt", **change)
        result = other.predict(deciding / "hole.png")
        found = (result.decision, result.category, result.p_value, result.threshold, result.regions)
        assert found == ("not calibrated", "bolt", None, None, [])
    same_settings = Detector.load(deciding / "model.ckpt", num_steps=detector.num_steps)
    assert same_settings.predict(deciding / "hole.png").decision == "defect"


def test_a_rate_need_only_be_supported_by_the_product_that_is_given(deciding: Path) -> None:
    detector, products = Detector.load(deciding / "model.ckpt"), {}
    for number, name in enumerate(detector.products.names):
        products[name] = detector.products.normal(number)
    few = NormalScores(*(scores[:4] for scores in products["nut"]))
    described = {name: torch.randn(4, detector.extractor.num_channels) for name in products}
    detector.products.fit(described, {"bolt": products["bolt"], "nut": few})
    hole = deciding / "hole.png"
    assert detector.predict(hole, category="bolt", false_alarms=0.1).decision == "defect"
    for category in ("nut", None):
        with pytest.raises(InputError, match=r"'nut': 4 normal"):
            detector.predict(hole, category=category, false_alarms=0.1)


def test_a_product_and_a_rate_of_false_alarms_can_be_given(
    detector: Detector, deciding: Path
) -> None:
    hole = deciding / "hole.png"
    result = detector.predict(hole)
    assert result.category == "bolt"
    assert result.p_value == pytest.approx(1 / 21)
    as_nut = detector.predict(hole, category="nut")
    assert as_nut.category == "nut"
    assert as_nut.score == result.score
    strict = detector.predict(hole, false_alarms=0.05)
    lax = detector.predict(hole, false_alarms=0.5)
    assert lax.threshold.image < strict.threshold.image == result.threshold.image
    grey = detector.predict(np.full((40, 40), 0.5))
    assert (grey.decision, grey.category, grey.p_value) == ("unknown product", None, None)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"category": "screw"}, "no product 'screw'. It knows bolt, nut"),
        ({"false_alarms": 0.01}, "needs 99 photographs"),
        ({"false_alarms": 1}, "must lie between 0 and 1, but got 1"),
        ({"false_alarms": "1 %"}, "must lie between 0 and 1, but got '1 %'"),
        ({"false_alarms": math.nan}, "must lie between 0 and 1, but got nan"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"color": "gbr"}, "color must be one of"),
    ],
)
def test_a_mistake_is_found_before_any_photograph_is_taken(
    detector: Detector, arguments: dict[str, Any], named: str
) -> None:
    def camera() -> Iterator[np.ndarray]:
        raise AssertionError
        yield

    with pytest.raises(InputError, match=named.replace(".", r"\.")):
        detector.predict(camera(), **arguments)


def test_a_generator_takes_frames_only_as_they_are_asked_for(detector: Detector) -> None:
    frames: list[int] = []

    def camera() -> Iterator[np.ndarray]:
        for number in range(3):
            frames.append(number)
            yield np.zeros((8, 8), np.uint8)

    results = detector.predict(camera(), batch_size=1)
    assert frames == []
    next(results)
    assert frames == [0]
    assert len([*results]) == 2
    assert [*detector.predict(iter([]))] == []


def test_a_list_names_the_photograph_that_is_refused(detector: Detector, deciding: Path) -> None:
    with pytest.raises(InputError, match=r"^photographs\[1\] holds NaN"):
        detector.predict([deciding / "photo.png", np.array([[np.nan]])])
    with pytest.raises(InputError, match="empty list"):
        detector.predict([])
    with pytest.raises(InputError, match="of type int"):
        detector.predict(3)  # type: ignore[call-overload]
