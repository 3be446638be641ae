"""What users rely on: the public names, the commands and options, and their help."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import pytest
import yaml

import omiad
from omiad.cli import COMMANDS, main, manual
from omiad.data import FeatureDataModule
from omiad.help import meanings
from omiad.modules import OmiADModule
from omiad.terminal import console


def test_the_public_names_are_these() -> None:
    assert set(omiad.__all__) == {
        "AMDMModule",
        "Detector",
        "FeatureDataModule",
        "OmiADModule",
        "Prediction",
        "RayScorer",
        "Sample",
        "__version__",
        "to_canvas",
        "train",
    }
    assert all(hasattr(omiad, name) for name in omiad.__all__)
    with pytest.raises(AttributeError, match="Detektor"):
        omiad.Detektor  # noqa: B018


def test_the_installed_command_prints_its_manual_without_importing_torch() -> None:
    command = [sys.executable, "-X", "importtime", str(Path(sys.executable).with_name("omiad"))]
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout == manual()
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "omiad.cli" in imported
    assert not imported & {"torch", "numpy", "lightning", "jsonargparse", "rich"}
    assert len(imported) < 200


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_a_function(name: str) -> None:
    assert callable(resolve_name(f"omiad.{COMMANDS[name][0]}"))


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"omiad {omiad.__version__}\n"


@pytest.mark.parametrize("words", [["data"], ["cache", "-h"], ["data", "--help"]])
def test_a_group_lists_its_commands(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(words)
    printed = capsys.readouterr().out
    assert all((f"\n  {name} " in printed) == name.startswith(words[0]) for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["tset"], "'tset'. Did you mean 'test'"),
        (["data", "chek", "--data.root=x"], "Did you mean 'data check'"),
        (["data", "--data.root=x"], "'data'"),
        (["--halp"], "'--halp'"),
    ],
)
def test_an_unknown_command_is_named_with_what_comes_near(
    words: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(words)
    assert exit_info.value.code == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize("width", [20, 80, 100, 200])
@pytest.mark.parametrize("command", ["fit", "test"])
def test_the_help_of_fit_and_test_takes_at_most_100_lines(
    command: str,
    width: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    console()  # which keeps the width of its terminal for all tests
    monkeypatch.setenv("COLUMNS", str(width))
    main([command, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 100
    assert max(map(len, lines)) <= 100
    assert sum(line.startswith("  --trainer.") for line in lines) <= 6
    assert f"omiad {command} --help_all" in "\n".join(lines)


def test_the_help_of_fit_explains_every_option_of_data_and_model_by_the_docstrings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["fit", "--help"])
    printed = capsys.readouterr().out
    for prefix, its_class in (("data", FeatureDataModule), ("model", OmiADModule)):
        names = {*meanings(its_class)} & {*inspect.signature(its_class).parameters} - {"seed"}
        assert all(f"--{prefix}.{name}" in printed for name in names)
    root = meanings(FeatureDataModule)["root"].removesuffix(".")
    assert re.search(rf"--data\.root +{re.escape(root)} \[required\]\n", printed)


@pytest.mark.parametrize("command", ["fit", "test"])
def test_help_all_prints_lightnings_options_too(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([command, "--help_all"])
    assert exit_info.value.code == 0
    printed = capsys.readouterr().out
    assert "--trainer.limit_val_batches" in printed
    assert "--data.root" in printed


def key_paths(section: dict[str, object], prefix: str = "") -> list[str]:
    paths = []
    for name, value in section.items():
        inner = isinstance(value, dict) and value
        paths += key_paths(value, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]  # type: ignore[arg-type]
    return sorted(paths)


def test_omiads_own_options_change_only_on_purpose(
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--config=configs/amdm_folder.yaml", "--data.root=parts", "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert {"max_steps", "max_epochs", "accelerator", "devices"} <= {*printed.pop("trainer")}
    names = [name for name in key_paths(printed) if "optimizer.init_args" not in name]  # torch's
    golden = Path("tests/goldens/option_names.json")
    if request.config.getoption("--update-goldens"):
        golden.write_text(json.dumps(names, indent=2) + "\n")
    assert names == json.loads(golden.read_text())
