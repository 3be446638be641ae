"""The longer command lines of the README, each section from end to end on a few small images."""

from pathlib import Path

import numpy as np
import pytest
import timm
from readme import CHECKOUT, run, titles, typed_lines
from safetensors.torch import save_file
from synthetic import write_mvtec, write_realiad, write_visa

from omiad.paper import categories_of

pytestmark = pytest.mark.slow

ELSEWHERE = {"Your own photographs", "A report", "Measuring any method", "Troubleshooting"}
"""Sections that test_readme.py runs."""

CHECKPOINT = "--ckpt_path runs/sweeps/mvtec/adaptive_mask_asd/part_0/checkpoints/last.ckpt"
BEFORE = {
    "omiad typeset runs/test/": [
        f"omiad test {CHECKPOINT}",
        f"omiad test {CHECKPOINT} --save_maps",
        "omiad evaluate --maps runs/test/version_1/maps --data.root mvtec_anomaly_detection "
        "--output my_method/results.json",
    ],
    "omiad typeset runs/sweeps/": ["make sweep-visa ROOT=visa"],
}
"""What a line takes for granted that its section does not say."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user who has the data sets and weights that the README names."""
    for name in ("configs", "tests"):
        (tmp_path / name).symlink_to(CHECKOUT / name)
    rng = np.random.default_rng(0)
    for name in ("my_parts", "real"):
        write_mvtec(tmp_path / name, rng)
    # With all their categories, for only then does the paper have figures on them.
    mvtec, visa = ([*categories_of(name).values()] for name in ("MVTec-AD", "VisA"))
    few = {"num_train": 2, "num_good": 1, "num_bad": 1}
    write_mvtec(tmp_path / "mvtec_anomaly_detection", rng, categories=mvtec, **few)
    write_visa(tmp_path / "visa", rng, categories=visa)
    write_realiad(tmp_path / "Real-IAD", rng)
    backbone = timm.create_model("mobilenetv2_100")
    save_file(backbone.state_dict(), tmp_path / "mobilenetv2_100.safetensors")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("title", [t for t in titles() if t not in ELSEWHERE and typed_lines(t)])
def test_a_section_runs_from_its_first_line_to_its_last(
    title: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in typed_lines(title):
        for start, preparation in BEFORE.items():
            for earlier in preparation if line.startswith(start) else []:
                run(earlier, monkeypatch)
        run(line, monkeypatch)
