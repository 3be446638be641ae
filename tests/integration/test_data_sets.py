"""The configurations of the paper's four data sets, from end to end on generated trees."""

import json

import numpy as np
import pytest
from synthetic import write_mpdd, write_mvtec, write_realiad, write_visa

from omiad.cli import main

MPDD = {"connector", "metal_plate", "tubes"}

# What the trees and a CPU in a test need; all else is the configuration's.
SMALL = [
    "--data.backbone=test_efficientnet",
    "--data.weights=random",
    "--data.image_size=32",
    "--data.feature_size=8",
    "--data.batch_size=4",
    "--data.num_workers=0",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.max_steps=2",
    "--trainer.log_every_n_steps=1",
]
NETWORK = [
    "--model.network=omiad.networks.UNet",
    "--model.network.width=8",
    "--model.network.multipliers=[1,2]",
    "--model.network.num_blocks=1",
    "--model.network.attention_factors=[2]",
]


@pytest.mark.parametrize(
    ("name", "write", "categories"),
    [
        ("realiad", write_realiad, {"audiojack", "bottle_cap"}),
        pytest.param("visa", write_visa, {"candle", "pcb1"}, marks=pytest.mark.slow),
        # Other tests of the command line go through this layout.
        pytest.param("mvtec", write_mvtec, {"bottle", "cable"}, marks=pytest.mark.slow),
        pytest.param("mpdd", write_mpdd, MPDD, marks=pytest.mark.slow),
    ],
)
def test_both_stages_train_and_test_on_the_data_set(name, write, categories, tmp_path):
    root = tmp_path / name
    write(root, np.random.default_rng(0))
    data = [*SMALL, f"--data.root={root}", f"--data.cache_dir={tmp_path / 'cache'}"]
    teacher, student = (tmp_path / kind / "checkpoints/last.ckpt" for kind in ("amdm", "omiad"))
    for kind, extra in (("amdm", NETWORK), ("omiad", [f"--model.teacher={teacher}"])):
        run_dir = f"--run_dir={tmp_path / kind}"
        main(["fit", f"--config=configs/{kind}_{name}.yaml", run_dir, *data, *extra])
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    main(["test", f"--ckpt_path={student}", f"--run_dir={tmp_path / 'test'}", *quiet])
    results = json.loads((tmp_path / "test" / "results.json").read_text())
    assert results["dataset"] == name
    assert set(results["categories"]) == categories
    assert all(0 <= value <= 1 for value in results["mean"].values())
