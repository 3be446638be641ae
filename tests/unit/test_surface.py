"""What users hold on to: the public names, and the commands the README gives."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest
import yaml

import omiad
from omiad.cli import COMMANDS, main


def test_the_public_names_are_these() -> None:
    assert set(omiad.__all__) == {
        "AMDMModule",
        "Detector",
        "FeatureDataModule",
        "OmiADModule",
        "Prediction",
        "Sample",
        "__version__",
    }
    assert all(hasattr(omiad, name) for name in omiad.__all__)


def readme_commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", Path("README.md").read_text(), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("omiad ")]


@pytest.mark.parametrize("command", readme_commands())
def test_a_command_of_the_readme_exists_with_its_configuration(command: str) -> None:
    words = command.split()
    assert words[1] in COMMANDS or " ".join(words[1:3]) in COMMANDS
    if "--config" in words:
        assert Path(words[words.index("--config") + 1]).is_file()


def test_the_readme_opens_with_the_two_commands() -> None:
    first = re.search(r"```bash\n(.*?)```", Path("README.md").read_text(), flags=re.DOTALL)
    assert first is not None
    assert [line.split("#")[0].strip() for line in first[1].splitlines()] == [
        "make demo",
        "make test",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "data.root",
        "data.backbone",
        "data.weights",
        "data.image_size",
        "data.cache_dir",
        "data.batch_size",
        "data.num_workers",
        "trainer.max_steps",
        "trainer.max_epochs",
        "seed_everything",
    ],
)
def test_an_option_that_scripts_rely_on_is_there(name: str, printed: dict[str, object]) -> None:
    section: object = printed
    for part in name.split("."):
        assert isinstance(section, dict)
        assert part in section
        section = section[part]


@pytest.fixture(scope="module")
def printed() -> dict[str, object]:
    """The whole configuration of a fit, as `--print_config` gives it."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
        main(["fit", "--config=configs/amdm_folder.yaml", "--data.root=parts", "--print_config"])
    config = yaml.safe_load(out.getvalue())
    assert isinstance(config, dict)
    return config


def key_paths(section: dict[str, object], prefix: str = "") -> list[str]:
    paths = []
    for name, value in section.items():
        inner = isinstance(value, dict) and value
        paths += key_paths(value, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]  # type: ignore[arg-type]
    return sorted(paths)


def test_omiads_own_options_change_only_on_purpose(
    printed: dict[str, object], request: pytest.FixtureRequest
) -> None:
    ours = {name: value for name, value in printed.items() if name != "trainer"}
    names = [name for name in key_paths(ours) if "optimizer.init_args" not in name]  # torch's own
    golden = Path("tests/goldens/option_names.json")
    if request.config.getoption("--update-goldens"):
        golden.write_text(json.dumps(names, indent=2) + "\n")
    assert names == json.loads(golden.read_text())
