"""A compiled detector scores like itself, and what cannot be compiled is a sentence."""

import shutil
from pathlib import Path

import pytest
import torch

from omiad import Detector
from omiad.benchmark import benchmark
from omiad.cli import main
from omiad.compilation import compile_detector
from omiad.errors import InputError
from omiad.prediction import predict


@pytest.fixture
def detector(deciding: Path) -> Detector:
    return Detector.load(deciding / "model.ckpt")


@pytest.mark.slow
def test_a_compiled_detector_scores_like_itself(
    detector: Detector, deciding: Path, generator: torch.Generator
) -> None:
    images = torch.randint(0, 256, (3, 3, 32, 32), generator=generator, dtype=torch.uint8)
    expected = detector.assess_images(images, None)
    keys = [*detector.state_dict()]
    compile_detector(detector, "default")
    found = detector.assess_images(images, None)
    torch.testing.assert_close(found.score, expected.score, rtol=1e-4, atol=0)
    torch.testing.assert_close(found.anomaly_map, expected.anomaly_map, rtol=1e-4, atol=1e-4)
    assert found.shown.equal(expected.shown)
    assert [*detector.state_dict()] == keys
    alone = detector.assess_images(images[1:2], None)
    assert alone.score[0] == found.score[1]


@pytest.mark.slow
def test_the_commands_compile(
    deciding: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(deciding / "model.ckpt", tmp_path)
    photos = [str(deciding / "photo.png"), str(deciding / "hole.png")]
    main(["predict", "model.ckpt", *photos, "--num_workers", "0", "--compile", "default"])
    rows = (tmp_path / "predictions" / "predictions.csv").read_text().splitlines()[1:]
    assert ["ok" in rows[0], "defect" in rows[1]] == [True, True]
    capsys.readouterr()
    benchmark("model.ckpt", batch_sizes=(1,), seconds=0.01, compile="default")
    assert "model.ckpt, compiled" in capsys.readouterr().out


@pytest.mark.slow
def test_a_missing_compiler_is_a_sentence(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("gone",))
    torch.compiler.reset()
    with pytest.raises(InputError, match=r"cannot be compiled here \(.*needs a C\+\+ compiler"):
        compile_detector(detector, "default")


def test_a_mode_that_cannot_run_leaves_no_output(deciding: Path, tmp_path: Path) -> None:
    out, photo = tmp_path / "out", str(deciding / "photo.png")
    model = str(deciding / "model.ckpt")
    with pytest.raises(InputError, match="CUDA graphs"):
        predict(model, [photo], output=str(out), device="cpu", compile="reduce-overhead")
    assert not out.exists()


def test_what_cannot_be_compiled_is_refused(detector: Detector) -> None:
    with pytest.raises(InputError, match=r"CUDA graphs, which need a GPU, .* 'cpu'"):
        compile_detector(detector, "reduce-overhead")
    with pytest.raises(InputError, match="must be default or reduce-overhead, but got 'fast'"):
        compile_detector(detector, "fast")  # type: ignore[arg-type]
