"""Sweeps end to end on generated data sets: finished, interrupted, refused and collected."""

import json
import shutil
import signal
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
from omiad.modules import AMDMModule, OmiADModule, TrainingModule
from omiad.paper import categories_of, paper_table
from omiad.paper.runs import Model, Runs, sweep_results
from omiad.paper.sweep import sweep, table

OPTIONS = (
    "--data.batch_size=4 --data.num_workers=0 --trainer.accelerator=cpu --trainer.max_steps=4 "
    "--trainer.precision=32-true --trainer.log_every_n_steps=1 --trainer.enable_progress_bar=false"
)
TEACHER_OPTIONS = (
    "--data.backbone=test_efficientnet --data.weights=random --data.image_size=32 "
    "--data.feature_size=8"
)
MODELS = {"AMDM": "adaptive_mask", "OmiAD": "adaptive_mask_asd"}
RESULTS = Path("test", "part_0", "results.json")
TINY = f"{TEACHER_OPTIONS} --model.network=omiad.networks.unet_tiny"


def options(folder: Path, *, more: str = "", teacher: str = TINY) -> dict[str, str]:
    configs = folder / "configs"
    return {
        "output": str(folder / "sweeps"),
        **({"configs": str(configs)} if configs.is_dir() else {}),
        "options": f"{OPTIONS} --data.cache_dir={folder / 'cache'} {more}",
        "teacher_options": teacher,
    }


def sweep_by_words(dataset: str, root: Path, folder: Path) -> None:
    main(["sweep", dataset, str(root), *(f"--{k}={v}" for k, v in options(folder).items())])


def interrupt_at(step: int, stage: type[TrainingModule], monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C once, after that many optimiser steps of a stage."""
    original = LastCheckpoint.on_train_batch_end

    def on_train_batch_end(self, trainer, module, *args):  # type: ignore[no-untyped-def]
        original(self, trainer, module, *args)
        if trainer.global_step == step and isinstance(module, stage):
            monkeypatch.setattr(LastCheckpoint, "on_train_batch_end", original)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(LastCheckpoint, "on_train_batch_end", on_train_batch_end)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    finished = json.loads((folder / "finished.json").read_text())
    return torch.load(folder / finished["checkpoint"], weights_only=True)["state_dict"]


def results_of(model: Path) -> dict[str, Any]:
    return json.loads((model / RESULTS).read_text())


def percent(figure: float) -> str:
    return f"{100 * figure:.1f}"


@pytest.fixture(scope="module")
def swept(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that was never interrupted."""
    folder = tmp_path_factory.mktemp("swept")
    shutil.copytree("configs", folder / "configs")
    sweep_by_words("mvtec", mvtec_root, folder)
    return folder


def test_a_sweep_leaves_both_models_and_a_table(swept: Path) -> None:
    folder = swept / "sweeps" / "mvtec"
    text = (folder / "table.md").read_text()
    for name in MODELS.values():
        assert f"| {percent(results_of(folder / name)['mean']['mad'])} |" in text
    assert "minutes of training: AMDM 0, OmiAD 0" in text
    # The paper's means are over fifteen categories, these over two.
    assert "(paper)" not in text
    # No option beats the configuration of the row, which comes last.
    asked = json.loads((folder / "adaptive_mask" / "asked.json").read_text())
    assert asked["arguments"][-1].endswith("ablation/adaptive_mask")


def test_tables_1_and_12_collect_the_finished_sweeps(swept: Path, tmp_path: Path) -> None:
    for name in ("mvtec", "mvtec_small"):
        shutil.copytree(swept / "sweeps" / "mvtec", tmp_path / name)
    for number in (1, 12):
        table(number, output=str(tmp_path))
    table(1, output=str(tmp_path), small=True)  # does not overwrite the full tables
    first, twelfth, small = (
        (tmp_path / f"table_{name}.md").read_text() for name in ("1", "12", "1_small")
    )
    for method, name in MODELS.items():
        results = results_of(swept / "sweeps" / "mvtec" / name)
        start = f"| {results['dataset']} | {method} | {percent(results['mean']['image_auroc'])} |"
        assert start in first
    rate = results["further"]["mean"]["image_fpr_at_num_anomalous"]
    assert f"| {results['dataset']} | {100 * rate:.2f} |" in twelfth
    assert "small preset" in small
    assert "small" not in first


def test_the_papers_means_are_listed_if_the_categories_are_the_papers(
    swept: Path, tmp_path: Path
) -> None:
    for name in MODELS.values():
        results = results_of(swept / "sweeps" / "mvtec" / name)
        names = categories_of("MVTec-AD").values()
        for section in (results, results["further"]):
            row = next(iter(section["categories"].values()))
            section["categories"] = dict.fromkeys(names, row)
        results |= {"bounds": {}, "notes": {}, "vanished": {}, "views": None, "intervals": None}
        path = tmp_path / "mvtec" / name / RESULTS
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(results))
    table(1, output=str(tmp_path))
    lines = (tmp_path / "table_1.md").read_text().splitlines()
    names = [line.split(" | ")[1] for line in lines[4:]]
    assert names == ["AMDM (paper)", "OmiAD (paper)", "AMDM", "OmiAD"]
    assert lines[5].endswith(" | 85.3 |")


def test_a_finished_sweep_is_not_repeated(swept: Path, mvtec_root: Path) -> None:
    def written() -> dict[Path, int]:
        kept = (".ckpt", ".npz", ".csv")
        return {p: p.stat().st_mtime_ns for p in swept.rglob("*") if p.suffix in kept}

    before = written()
    assert before
    with (swept / "configs" / "amdm_mvtec.yaml").open("a") as file:
        file.write("# A later comment.\n")
    sweep("mvtec", str(mvtec_root), **options(swept))
    assert written() == before


@pytest.mark.slow
def test_an_interrupted_sweep_ends_with_the_same_weights(
    swept: Path, mvtec_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = tmp_path / "sweeps" / "mvtec" / "adaptive_mask" / "part_0"  # before a checkpoint
    died.mkdir(parents=True)
    (died / "config.yaml").touch()
    # One interruption in each stage; the first batch of stage 2 trains only the student.
    for step, stage in ((2, AMDMModule), (3, OmiADModule)):
        interrupt_at(step, stage, monkeypatch)
        with pytest.raises(SystemExit):
            sweep("mvtec", str(mvtec_root), **options(tmp_path))
    sweep("mvtec", str(mvtec_root), **options(tmp_path))
    for name in MODELS.values():
        folders = [where / "sweeps" / "mvtec" / name for where in (swept, tmp_path)]
        whole, resumed = map(weights, folders)
        assert all(torch.equal(value, resumed[key]) for key, value in whole.items()), name
        assert json.loads((folders[1] / "finished.json").read_text())["parts"] == 2


def test_a_sweep_survives_a_torn_marker(swept: Path, mvtec_root: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn"
    shutil.copytree(swept, torn)
    folder = torn / "sweeps" / "mvtec" / "adaptive_mask"
    before = weights(folder)
    (folder / "finished.json").write_text('{"checkpoint": ')
    (folder / "part_0" / "seconds").unlink()  # missing after a kill
    given = {key: value for key, value in options(torn).items() if key.endswith("options")}
    runs = Runs("mvtec", mvtec_root, folder.parent, torn / "configs", **given)
    model = Model("adaptive_mask")
    asked = folder / "asked.json"
    asked.write_text(asked.read_text().replace(str(swept), str(torn)))
    assert runs.results(model) == folder / RESULTS
    after = weights(folder)
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert runs.minutes(model) == "?"
    asked.write_text("")
    with pytest.raises(InputError, match=r"asked\.json"):
        runs.results(model)


@pytest.mark.parametrize(
    ("before", "after", "more", "named"),
    [
        ("", "", "--trainer.max_steps=5", "--output"),
        ("seed_everything: 0", "seed_everything: 5", "", "--output"),
        ("seed_everything: 0", "{", "", "YAML"),
    ],
)
def test_a_sweep_does_not_continue_with_other_options_or_configurations(
    swept: Path, mvtec_root: Path, before: str, after: str, more: str, named: str
) -> None:
    path = swept / "configs" / "amdm_mvtec.yaml"
    text = path.read_text()
    path.write_text(text.replace(before, after, 1))
    try:
        with pytest.raises(InputError, match=named):
            sweep("mvtec", str(mvtec_root), **options(swept, more=more))
    finally:
        path.write_text(text)


def test_a_sweep_that_could_not_start_accepts_other_options(tmp_path: Path) -> None:
    for root in ("no/such", "nor/this"):
        with pytest.raises(InputError, match=root):
            sweep("mvtec", root, **options(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["table", "2"], "Table 2"),
        (["table", "3"], "--root"),
        (["table", "1", "--output=nowhere"], "'nowhere'"),
        (["sweep", "mvtec", "parts", "--configs=nowhere"], "'amdm_mvtec.yaml'"),
    ],
)
def test_what_cannot_be_swept_is_refused(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    assert named in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "write", [write_mvtec, write_visa, write_mpdd, write_realiad, write_folder]
)
def test_every_layout_is_swept_from_the_command_line(
    write: Callable[[Path, np.random.Generator], None], tmp_path: Path
) -> None:
    dataset = write.__name__.removeprefix("write_")
    root = tmp_path / "data"
    write(root, np.random.default_rng(0))
    sweep_by_words(dataset, root, tmp_path)
    folder = tmp_path / "sweeps" / dataset
    for name in MODELS.values():
        figure = percent(results_of(folder / name)["mean"]["image_auroc"])
        assert f" | {figure} | " in (folder / "table.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("number", [3, 13, 14, 15])
def test_every_row_of_an_ablation_is_trained_and_tested(
    number: int, mvtec_root: Path, tmp_path: Path
) -> None:
    given = options(tmp_path, teacher=TEACHER_OPTIONS)
    table(number, root=str(mvtec_root), small=True, **given)
    folder = tmp_path / "sweeps" / "mvtec_small"
    found = sweep_results(number, folder)
    own = [json.loads(path.read_text())["mean"] for path in found.values()]
    rows = paper_table(number)
    assert list(found) == [row.method for row in rows]
    text = (folder / f"table_{number}.md").read_text()
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    if number == 3:
        figures = [f"{percent(x['image_auroc'])}/{percent(x['pixel_auroc'])}" for x in own]
        assert [line[-2] for line in lines[2:]] == [row.printed for row in rows]
        assert [line[-1] for line in lines[2:]] == figures
    else:
        for i, metric in enumerate(("image_auroc", "pixel_auroc")):
            assert lines[2 + i][1:] == [f"{row.figures[metric]:.1f}" for row in rows]
            assert lines[4 + i][1:] == [percent(mean[metric]) for mean in own]
    # All rows with the same teacher share one fit of it.
    assert len(list((folder / "adaptive_mask").glob("part_*"))) == 1
