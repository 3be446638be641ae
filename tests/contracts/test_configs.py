"""Every configuration parses, its header says how to run it, and a row changes only its subject."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import amdm, data_of, fit, saved

from omiad.cli import main
from omiad.configurations import configurations
from omiad.paper import paper_table

CONFIGS = sorted(Path("configs").glob("*.yaml"))
AMDM_CONFIGS = [path for path in CONFIGS if "amdm" in path.stem]
FOLDER = Path("configs/ablation")
TABLES: dict[int, dict[str, dict[str, str]]] = yaml.safe_load((FOLDER / "tables.yaml").read_text())
FRAGMENTS = sorted(path for path in FOLDER.glob("*.yaml") if path.stem != "tables")


def printed(*arguments: str) -> dict[str, Any]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit, match=r"^0$"):
        main(["fit", *arguments, "--data.root=parts", "--print_config"])
    return flat(yaml.safe_load(out.getvalue()))


def flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in section.items():
        inner = isinstance(value, dict) and value
        leaves |= flat(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return leaves


def changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {
        name.removeprefix("model.init_args.").removeprefix("data."): short(value)
        for name, value in after.items()
        if name not in before or before[name] != value
    }


def short(value: Any) -> Any:
    # Some versions of jsonargparse print the shortest path a function can be imported from.
    return value.rpartition(".")[2] if isinstance(value, str) and "omiad" in value else value


# Those of stage 2 need a teacher's checkpoint; tests/integration fits them.
@pytest.mark.parametrize("path", AMDM_CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_parses(path: Path) -> None:
    config, given = printed(f"--config={path}"), flat(yaml.safe_load(path.read_text()))
    assert config["trainer.max_steps"] == given["trainer.max_steps"]
    assert short(config["model.class_path"]) == short(given["model.class_path"])


@pytest.mark.parametrize("path", [*CONFIGS, *FOLDER.glob("*.yaml")], ids=lambda path: path.stem)
def test_a_header_is_short_and_gives_the_command(path: Path) -> None:
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert 2 <= len(header) <= 12
    (run,) = [line for line in header if line.startswith("# Run:     omiad")]
    named = re.findall(r"--config (\S+)", run)
    assert {*named} <= {*configurations()}
    if path in FRAGMENTS and not path.stem.startswith("small"):
        assert named[-1] == f"ablation/{path.stem}"  # no other configuration overrides it


def test_every_row_of_the_papers_ablations_has_its_files() -> None:
    for number, rows in TABLES.items():
        assert list(rows) == [row.method for row in paper_table(number)]
    rows_of_all = [row for rows in TABLES.values() for row in rows.values()]
    assert {row["teacher"] for row in rows_of_all} == TEACHER_CHANGES.keys()
    assert {row["distil"] for row in rows_of_all if "distil" in row} == DISTIL_CHANGES.keys()
    small = {"small", "small_distil"} | {row.get("small_teacher") for row in rows_of_all} - {None}
    assert {path.stem for path in FRAGMENTS} == {*small, *TEACHER_CHANGES, *DISTIL_CHANGES}


def test_headers_quote_the_figures_that_the_paper_prints() -> None:
    for number, rows in TABLES.items():
        for row in paper_table(number):
            files = rows[row.method]
            name = files.get("distil", files["teacher"])
            if name == "asd" and files["teacher"] != "adaptive_mask":
                name = files["teacher"]
            words = " ".join((FOLDER / f"{name}.yaml").read_text().replace("#", " ").split())
            image, pixel = row.figures.values()
            assert f"image AUROC {image}, pixel AUROC {pixel} (in %)" in words, (number, row)


TEACHER_CHANGES: dict[str, dict[str, Any]] = {
    "ddpm": {"masking.p_min": 0.0, "masking.p_max": 0.0},
    "fixed_mask": {"masking.p_min": 0.25, "masking.p_max": 0.25},
    "adaptive_mask": {},
    "dit": {"network": "dit_base"},
    "uvit": {"network": "uvit_base"},
    **{
        f"resnet{n}": {"t_init": 400, "backbone": f"resnet{n}.tv_in1k", "stages": [1, 2, 3]}
        for n in (18, 34, 50, 101)
    },
}


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    return printed("--config=configs/amdm_mvtec.yaml")


@pytest.mark.parametrize("name", TEACHER_CHANGES)
def test_a_row_of_stage_1_changes_only_what_it_is_about(name: str, base: dict[str, Any]) -> None:
    row = printed("--config=configs/amdm_mvtec.yaml", f"--config={FOLDER / name}.yaml")
    assert changed(base, row) == TEACHER_CHANGES[name]


def test_the_small_preset_keeps_the_settings_of_the_row() -> None:
    for name in ("ddpm", "dit_small", "uvit_small", "resnet18"):
        files = ("configs/amdm_mvtec.yaml", FOLDER / "small.yaml", FOLDER / f"{name}.yaml")
        small = printed(*(f"--config={path}" for path in files))
        network = name if name.endswith("_small") else "unet_small"
        assert short(small["model.init_args.network"]) == network
        assert small["model.init_args.t_init"] == (400 if name == "resnet18" else 500)
        assert small["model.init_args.masking.p_max"] == (0.0 if name == "ddpm" else 0.4)
        assert small["trainer.precision"] == "32-true"
        assert small["data.feature_size"] == 16


DISTIL_CHANGES: dict[str, dict[str, Any]] = {
    "add": {
        "model.class_path": "ADDModule",
        "lambda_distill": 2.5,
        "r1_weight": 1e-5,
        "student_optimizer.init_args.lr": 1e-4,
        "student_optimizer.init_args.betas": [0.0, 0.99],
    },
    "distill": {"lambda_student_adv": 0.0, "lambda_generator_adv": 0.0},
    "asd": {},
    **{f"t_init_{t}": {"t_init": t} for t in (600, 700, 800, 940, 960, 980, 1000)},
}


@pytest.fixture(scope="module")
def teacher(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("teacher")
    return f"--model.teacher={saved(fit(amdm(), data_of(mvtec_root, folder), folder, 1))}"


@pytest.fixture(scope="module")
def distil_base(teacher: str) -> dict[str, Any]:
    return printed("--config=configs/omiad_mvtec.yaml", teacher)


@pytest.mark.parametrize("name", DISTIL_CHANGES)
def test_a_row_of_stage_2_changes_only_what_it_is_about(
    name: str, teacher: str, distil_base: dict[str, Any]
) -> None:
    row = printed("--config=configs/omiad_mvtec.yaml", f"--config={FOLDER / name}.yaml", teacher)
    assert changed(distil_base, row) == DISTIL_CHANGES[name]
