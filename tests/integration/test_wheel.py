"""The wheel holds what the quick start needs: it runs in an empty folder, without a checkout."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
SHORT = """
import sys
from omiad import recipe
from omiad.cli import main
recipe.STEPS["quick"] = (10, 12)
main(sys.argv[1:])
"""


def run(*command: object, cwd: Path) -> str:
    """Run a command that knows nothing of this checkout, and return what it prints."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_quick_start_runs_from_a_wheel_in_an_empty_folder(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling is not installed; `pip install omiad[dev]`")
    pip = (sys.executable, "-m", "pip")
    made, fresh, empty = (tmp_path / name for name in ("made", "fresh", "empty"))
    empty.mkdir()
    build = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", made, CHECKOUT)
    run(*pip, *build, cwd=empty)
    (wheel,) = made.glob("omiad-*.whl")
    venv.create(fresh)
    python = fresh / "bin" / "python"
    (packages,) = fresh.glob("lib/python*/site-packages")
    # The libraries of this environment, after the wheel and without any editable install.
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "libraries.pth").write_text("\n".join(libraries))
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=empty)
    where = run(python, "-c", "import omiad; print(omiad.__file__)", cwd=empty)
    assert where.startswith(str(fresh))
    omiad = fresh / "bin" / "omiad"
    counts = "--num_train=6 --num_test_good=1 --num_test_defective=1 --image_size=64"
    run(omiad, "data", "synthesize", "my_parts", *counts.split(), cwd=empty)
    backbone = "--backbone=test_efficientnet.r160_in1k --weights=random --device=cpu"
    trained = ("train", "my_parts", "--out=model", "--preset=quick", *backbone.split())
    assert "next: omiad predict" in run(python, "-c", SHORT, *trained, cwd=empty)
    run(omiad, "predict", "model/model.ckpt", "my_parts/gear/test", cwd=empty)
    assert len((empty / "predictions/predictions.csv").read_text().splitlines()) == 1 + 2
    for name in ("amdm_folder", "decoder"):
        printed = run(omiad, "fit", "--config", name, "--data.root=x", "--print_config", cwd=empty)
        assert "class_path: omiad.modules." in printed
