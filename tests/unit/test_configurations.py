from pathlib import Path

import pytest

from omiad.configurations import configurations, find_configuration
from omiad.errors import MissingInputError


@pytest.mark.parametrize("name", ["amdm_folder", "amdm_folder.yaml", "ablation/add"])
def test_a_configuration_is_found_by_name_from_any_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_configuration(name).read_text().startswith("#")


def test_a_file_beats_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("amdm_folder").write_text("model: {}")
    assert find_configuration("amdm_folder") == Path("amdm_folder")


@pytest.mark.parametrize("name", ["amdm_foldr", "configs/amdm_folder.yml", "../amdm_folder"])
def test_an_unknown_configuration_suggests_a_name(name: str) -> None:
    with pytest.raises(MissingInputError, match="amdm_folder"):
        find_configuration(name)


def test_every_configuration_of_the_checkout_is_known() -> None:
    files = {path.stem for path in Path("configs").rglob("*.yaml")}
    assert {Path(name).name for name in configurations()} == files
