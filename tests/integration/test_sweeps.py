"""Sweeps from end to end on generated trees: skipped, interrupted, begun again, collected."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import write_folder, write_mpdd, write_mvtec, write_realiad, write_visa

from omiad.callbacks import LastCheckpoint
from omiad.cli import main
from omiad.errors import InputError
from omiad.paper import categories_of, paper_table
from omiad.sweeps import TEACHER, printed_beside, rows_of_table
from omiad.sweeps.runs import Runs

OPTIONS = (
    "--data.batch_size=4 --data.num_workers=0 --trainer.accelerator=cpu --trainer.max_steps=4 "
    "--trainer.precision=32-true --trainer.log_every_n_steps=1 --trainer.enable_progress_bar=false"
)
TEACHER_OPTIONS = (
    "--data.backbone=test_efficientnet --data.weights=random --data.image_size=32 "
    "--data.feature_size=8 --model.network=omiad.networks.unet_tiny"
)


def options(folder: Path, *, teacher: str = TEACHER_OPTIONS) -> list[str]:
    configs = folder / "configs"
    return [
        f"--output={folder / 'sweeps'}",
        f"--configs={configs if configs.is_dir() else 'configs'}",
        f"--options={OPTIONS} --data.cache_dir={folder / 'cache'}",
        f"--teacher_options={teacher}",
    ]


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch, kind: str = "AMDM") -> None:
    """Press Ctrl-C once, when that many optimiser steps of a stage are done."""
    original = LastCheckpoint.on_train_batch_end

    def on_train_batch_end(self, trainer, module, *args):  # type: ignore[no-untyped-def]
        original(self, trainer, module, *args)
        if trainer.global_step == step and module.kind == kind:
            monkeypatch.undo()
            raise KeyboardInterrupt

    monkeypatch.setattr(LastCheckpoint, "on_train_batch_end", on_train_batch_end)


def files_of(folder: Path) -> dict[Path, int]:
    kept = (".ckpt", ".npz", ".csv")
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.suffix in kept}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    finished = json.loads((folder / "finished.json").read_text())
    state = torch.load(folder / finished["checkpoint"], weights_only=True)["state_dict"]
    assert isinstance(state, dict)
    return state


@pytest.fixture(scope="module")
def swept(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that was never interrupted."""
    folder = tmp_path_factory.mktemp("swept")
    shutil.copytree("configs", folder / "configs")
    main(["sweep", "mvtec", str(mvtec_root), *options(folder)])
    return folder


def results_of(row: Path) -> dict[str, Any]:
    results = json.loads((row / "test" / "part_0" / "results.json").read_text())
    assert isinstance(results, dict)
    return results


def test_a_sweep_leaves_both_models_and_a_table(swept: Path) -> None:
    folder = swept / "sweeps" / "mvtec"
    text = (folder / "table.md").read_text()
    for name in ("adaptive_mask", "adaptive_mask_asd"):
        assert f"| {100 * results_of(folder / name)['mean']['mad']:.1f} |" in text
    # The paper's means are over fifteen categories, these over two.
    assert "paper" not in text


def test_the_papers_means_stand_beside_means_over_its_categories(swept: Path) -> None:
    results = results_of(swept / "sweeps" / "mvtec" / "adaptive_mask_asd")
    assert not printed_beside(results, "mvtec", "OmiAD")
    results["categories"] = dict.fromkeys(categories_of("MVTec-AD").values())
    beside = printed_beside(results, "mvtec", "OmiAD")
    assert (beside["MVTec-AD"]["mad"], beside["MVTec-AD"]["image_auroc"]) == (85.3, 98.8)
    assert printed_beside(results, "mvtec", "AMDM")["MVTec-AD"]["mad"] == 84.6
    assert not printed_beside(results, "visa", "OmiAD")
    assert not printed_beside(results, "folder", "OmiAD")


def test_what_is_done_is_not_done_again(swept: Path, mvtec_root: Path) -> None:
    before = files_of(swept)
    assert before
    with (swept / "configs" / "amdm_mvtec.yaml").open("a") as file:
        file.write("# Said later.\n")
    main(["sweep", "mvtec", str(mvtec_root), *options(swept)])
    assert files_of(swept) == before


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_to_the_same_weights(
    swept: Path, mvtec_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One interruption in each stage; the first batch of stage 2 trains the student alone.
    for step, kind in ((2, "AMDM"), (3, "OmiAD")):
        interrupt_at(step, monkeypatch, kind)
        with pytest.raises(SystemExit):
            main(["sweep", "mvtec", str(mvtec_root), *options(tmp_path)])
    main(["sweep", "mvtec", str(mvtec_root), *options(tmp_path)])
    for name in ("adaptive_mask", "adaptive_mask_asd"):
        folders = [where / "sweeps" / "mvtec" / name for where in (swept, tmp_path)]
        whole, parted = map(weights, folders)
        assert all(torch.equal(value, parted[key]) for key, value in whole.items()), name
        assert json.loads((folders[1] / "finished.json").read_text())["parts"] == 2


@pytest.mark.slow
def test_a_fit_that_died_before_its_first_checkpoint_is_begun_anew(
    mvtec_root: Path, tmp_path: Path
) -> None:
    part = tmp_path / "sweeps" / "mvtec" / "adaptive_mask" / "part_0"
    part.mkdir(parents=True)
    (part / "config.yaml").touch()
    main(["sweep", "mvtec", str(mvtec_root), *options(tmp_path)])
    assert (part.with_name("part_1") / "checkpoints" / "last.ckpt").is_file()


def test_a_sweep_goes_on_after_a_marker_is_torn(
    swept: Path, mvtec_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(swept, tmp_path / "torn")
    row = tmp_path / "torn" / "sweeps" / "mvtec" / "adaptive_mask"
    before = weights(row)
    (row / "finished.json").write_text('{"checkpoint": ')
    (row / "part_0" / "seconds").unlink()  # as a kill leaves it
    command = ["fit", *options(tmp_path / "torn")]
    runs = Runs(
        "mvtec",
        mvtec_root,
        row.parent,
        configs=tmp_path / "torn" / "configs",
        small=False,
        options=command[3].removeprefix("--options="),
        teacher_options=TEACHER_OPTIONS,
    )
    asked = (row / "asked.json").read_text()
    (row / "asked.json").write_text(asked.replace(str(swept), str(tmp_path / "torn")))
    assert runs.results(TEACHER) == results_of(row)
    after = weights(row)
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert runs.seconds(TEACHER) is None
    (row / "asked.json").write_text("")
    with pytest.raises(InputError, match="holds a run with other configurations or options"):
        runs.results(TEACHER)


def test_a_sweep_with_other_options_is_not_mixed_in(
    swept: Path, mvtec_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = options(swept)
    arguments[2] += " --trainer.max_steps=5"
    with pytest.raises(SystemExit):
        main(["sweep", "mvtec", str(mvtec_root), *arguments])
    assert "holds a run with other configurations or options" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.slow
def test_a_sweep_that_could_not_begin_is_put_right_by_the_right_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for root in ("no/such", "nor/this"):
        with pytest.raises(SystemExit):
            main(["sweep", "mvtec", root, *options(tmp_path)])
        assert root in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [("seed_everything: 5", "holds a run with other configurations"), ("{", "is not valid YAML")],
)
def test_a_sweep_with_another_configuration_is_not_mixed_in(
    swept: Path, mvtec_root: Path, capsys: pytest.CaptureFixture[str], change: str, sentence: str
) -> None:
    path = swept / "configs" / "amdm_mvtec.yaml"
    before = path.read_text()
    path.write_text(before.replace("seed_everything: 0", change))
    try:
        with pytest.raises(SystemExit):
            main(["sweep", "mvtec", str(mvtec_root), *options(swept)])
    finally:
        path.write_text(before)
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_tables_1_and_12_collect_what_is_swept(swept: Path) -> None:
    output = f"--output={swept / 'sweeps'}"
    main(["table", "1", output])
    main(["table", "12", output])
    first, twelfth = ((swept / "sweeps" / f"table_{n}.md").read_text() for n in (1, 12))
    for method, name in (("AMDM", "adaptive_mask"), ("OmiAD", "adaptive_mask_asd")):
        results = results_of(swept / "sweeps" / "mvtec" / name)
        assert f"| MVTec-AD, {method} | {100 * results['mean']['image_auroc']:.1f} |" in first
    assert "VisA" not in first
    rate = results["further"]["mean"]["image_fpr_at_num_anomalous"]
    assert f"| MVTec-AD, OmiAD | {100 * rate:.1f} |" in twelfth


def test_tables_of_the_small_preset_do_not_overwrite_the_full_ones(
    swept: Path, tmp_path: Path
) -> None:
    sweeps = tmp_path / "sweeps"
    for name in ("mvtec", "mvtec_small"):
        shutil.copytree(swept / "sweeps" / "mvtec", sweeps / name)
    main(["table", "1", f"--output={sweeps}"])
    full = (sweeps / "table_1.md").read_text()
    main(["table", "1", f"--output={sweeps}", "--small=true"])
    assert (sweeps / "table_1.md").read_text() == full
    assert "small preset" in (sweeps / "table_1_small.md").read_text()
    assert "small" not in full


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["table", "2"], "Table 2 is not made of runs; choose 1, 12, 3, 13, 14, 15"),
        (["table", "3"], "Table 3 is trained on a data set. Give --root FOLDER"),
        (["table", "1", "--output=nowhere"], "No sweep under 'nowhere' is done"),
        (["sweep", "mvtec", "parts", "--configs=nowhere"], "No 'amdm_mvtec.yaml' in 'nowhere'"),
    ],
)
def test_what_cannot_be_swept_is_explained(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "write"),
    [
        ("mvtec", write_mvtec),
        ("visa", write_visa),
        ("mpdd", write_mpdd),
        ("realiad", write_realiad),
        ("folder", write_folder),
    ],
)
def test_every_layout_is_swept_through_an_interruption(
    dataset: str,
    write: Callable[[Path, np.random.Generator], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = tmp_path / "data"
    write(root, np.random.default_rng(0))
    interrupt_at(2, monkeypatch)
    command = ["sweep", dataset, str(root), *options(tmp_path)]
    with pytest.raises(SystemExit):
        main(command)
    main(command)
    folder = tmp_path / "sweeps" / dataset
    for name, parts in (("adaptive_mask", 2), ("adaptive_mask_asd", 1)):
        assert json.loads((folder / name / "finished.json").read_text())["parts"] == parts
        auroc = 100 * results_of(folder / name)["mean"]["image_auroc"]
        assert f" | {auroc:.1f} | " in (folder / "table.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("number", [3, 13, 14, 15])
def test_every_row_of_an_ablation_is_trained_and_tested(
    number: int, mvtec_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = "--data.weights=random --data.image_size=32 --data.feature_size=8"
    small = ["--small=true", f"--root={mvtec_root}"]
    command = ["table", str(number), *small, *options(tmp_path, teacher=teacher)]
    # Once in each stage; ADD is the first of Table 3 to be distilled.
    for step, kind in ((2, "AMDM"), (3, "OmiAD")):
        interrupt_at(step, monkeypatch, kind)
        with pytest.raises(SystemExit):
            main(command)
    main(command)
    folder = tmp_path / "sweeps" / "mvtec_small"
    text = (folder / f"table_{number}.md").read_text().replace("\\_", "_")
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    made_of = rows_of_table(number, folder, configs=Path("configs"))
    for own, paper, row in zip(lines[2::2], lines[3::2], paper_table(number), strict=True):
        path = made_of[row.method]
        assert path is not None
        mean = json.loads(path.read_text())["mean"]
        assert own[0] == row.method
        assert own[1:3] == [f"{100 * mean[key]:.1f}" for key in row.figures]
        assert paper[0] == "paper, MVTec-AD"
        assert paper[1:3] == [f"{value:.1f}" for value in row.figures.values()]
    # All rows that do not change it have one teacher, trained once.
    fits = (tmp_path / "sweeps" / "mvtec_small" / "adaptive_mask").glob("part_*/config.yaml")
    assert len(list(fits)) <= 2
