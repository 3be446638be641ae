"""A camera of 12 bits in files of 16 gives the figures of the same photographs in 8 bits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from synthetic import write_mvtec
from tiny import amdm, data_of, fit, saved, trainer_of

from omiad.detector import Detector
from omiad.errors import InputError
from omiad.modules import DetectionModule
from omiad.prediction.photographs import find_photographs
from omiad.prediction.scorer import Scorer

WHITE = 4095


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same gray photographs in 8 bits, and in 12 of 16."""
    folder = tmp_path_factory.mktemp("bits")
    for name in ("eight", "twelve"):
        write_mvtec(folder / name, np.random.default_rng(0), categories=("bolt",))
        for path in folder.glob(f"{name}/bolt/t*/*/*.png"):
            gray = np.asarray(Image.open(path).convert("L"))
            wide = (gray / 255 * WHITE).round().astype(np.uint16)
            Image.fromarray(wide if name == "twelve" else gray).save(path)
    return folder / "eight", folder / "twelve"


@pytest.mark.parametrize("cache", [True, "all", False])
def test_features_are_the_same_and_kept_apart(roots, tmp_path, cache):
    eight = data_of(roots[0], tmp_path, cache=cache)
    twelve, dark = (
        data_of(roots[1], tmp_path, cache=cache, white_level=level) for level in (WHITE, 65_535)
    )
    for split in ("train", "test"):
        theirs = torch.stack([*map(eight.features(split).__getitem__, range(3))])
        assert torch.equal(torch.stack([twelve.features(split)[i] for i in range(3)]), theirs)
        assert not torch.equal(torch.stack([dark.features(split)[i] for i in range(3)]), theirs)
    if cache is False:
        pairs = zip(eight.train_dataloader(), twelve.train_dataloader(), strict=True)
        assert all(torch.equal(a.images, b.images) for a, b in pairs)
    if cache != "all":
        pairs = zip(eight.test_dataloader(), twelve.test_dataloader(), strict=True)
        assert all(torch.equal(a.images, b.images) for a, b in pairs)


def test_the_checkpoint_keeps_the_white_level_for_test_and_predict(roots, tmp_path):
    module, data = amdm(), data_of(roots[1], tmp_path, white_level=WHITE)
    path = saved(fit(module, data, tmp_path, 2))
    detector = Detector.load(path)
    assert detector.extractor.config["white_level"] == WHITE
    scores = []
    for root in roots:
        found = Scorer(detector).results(find_photographs([str(root / "bolt/test")]))
        scores.append([scored.inspection.score for _, scored in found])
    assert scores[0] == scores[1]
    tested = data_of(roots[1], tmp_path, white_level=1023)
    with pytest.raises(InputError, match=r"--data\.white_level is 1023, .* trained with 4095"):
        trainer_of(tmp_path, 1).test(DetectionModule.load(str(path)), datamodule=tested)
    tested.use_extractor(detector.extractor)
    assert tested.white_level == WHITE


@pytest.mark.parametrize("level", [0, -1, 65_536])
def test_a_white_level_out_of_range_is_refused(roots, tmp_path, level):
    with pytest.raises(InputError, match=rf"white_level must lie in 1\.\.65535, but got {level}"):
        _ = data_of(roots[0], tmp_path, white_level=level).extractor
