"""Every section of a document runs from its first command to its last, on a few small images."""

from pathlib import Path

import numpy as np
import pytest
import timm
from readme import CHECKOUT, lines, run, typed
from safetensors.torch import save_file
from synthetic import write_mvtec, write_realiad, write_visa

from omiad.paper import categories_of

pytestmark = pytest.mark.slow

ELSEWHERE = {"Two commands", "Contributing", "Your own photographs"}
"""Sections that test_readme.py runs, and those that install, test and format the project."""

STAGES = typed("README.md", "Your own photographs")[1:3]
"""Both stages on my_parts/."""

TEST = "omiad test --ckpt_path runs/my_parts/omiad/checkpoints/last.ckpt"
MAPS = f"{TEST} --save_maps --run_dir maps"
"""Makes the maps that my_method/ stands for."""

BEFORE = {
    "How do I measure another method?": [*STAGES, MAPS],
    "Typesetting results": [
        *STAGES,
        MAPS,
        TEST,
        TEST,
        "omiad evaluate --maps my_method/ --data.root my_parts --pool_size 32 "
        "--output my_method/results.json",
        "make sweep-mvtec ROOT=mvtec_anomaly_detection",
        "make sweep-visa ROOT=visa",
    ],
    "How close are the decoder's pictures?": typed(
        "tests/benchmarks/README.md", "Which model is the best?"
    )[:2],
    "Commands that help": STAGES,
}
"""What a section takes for granted."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user who has the data sets and weights that the documents name."""
    for name in ("configs", "tests"):
        (tmp_path / name).symlink_to(CHECKOUT / name)
    (tmp_path / "my_method").symlink_to(tmp_path / "maps" / "maps")
    rng = np.random.default_rng(0)
    for name in ("my_parts", "real"):
        write_mvtec(tmp_path / name, rng)
    # With all their categories: only then does the paper have figures on them.
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


@pytest.mark.parametrize(
    ("document", "heading"),
    sorted({line[:2] for line in lines() if line.heading not in ELSEWHERE}),
)
def test_a_section_runs_from_its_first_line_to_its_last(
    document: str, heading: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in [*BEFORE.get(heading, []), *typed(document, heading)]:
        run(line, monkeypatch)
