"""Every configuration in configs/ parses, and its header says what it claims and how to run it."""

from pathlib import Path

import pytest
import yaml

from omiad.cli import main

CONFIGS = sorted(Path("configs").glob("*.yaml"))
AMDM_CONFIGS = [path for path in CONFIGS if "amdm" in path.stem]


# Those of stage 2 need a teacher's checkpoint; tests/integration fits them.
@pytest.mark.parametrize("path", AMDM_CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_parses(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["fit", f"--config={path}", "--data.root=parts", "--print_config"])
    printed, given = yaml.safe_load(capsys.readouterr().out), yaml.safe_load(path.read_text())
    assert printed["trainer"]["max_steps"] == given["trainer"]["max_steps"]
    # Some versions of jsonargparse print the shortest path a class can be imported from.
    names = [config["model"]["class_path"].rpartition(".")[2] for config in (printed, given)]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    "path", [*CONFIGS, *Path("configs/ablation").glob("*.yaml")], ids=lambda path: path.stem
)
def test_a_header_is_short_and_gives_the_command(path: Path) -> None:
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert 2 <= len(header) <= 12
    (run,) = [line for line in header if line.startswith("# Run:     omiad")]
    named = [word for word in run.split() if word.endswith(".yaml")]
    assert all(Path(name).is_file() for name in named)
    if path.parent.name == "ablation" and path.stem not in ("small", "small_distil", "tables"):
        assert named[-1].endswith(path.name)  # no other file overrides it
