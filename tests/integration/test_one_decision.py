"""The same photographs get the same decisions through every door."""

import csv
from contextlib import closing
from pathlib import Path

import pytest
from client import Client, running

from omiad import Detector
from omiad.cli import main
from omiad.export import export

pytestmark = pytest.mark.slow

Rows = dict[str, tuple[str, float]]
"""Decision and score of each photograph, by its path below the data set."""


@pytest.fixture(scope="module")
def parts(deciding: Path) -> Path:
    return deciding / "parts"


@pytest.fixture(scope="module")
def paths(parts: Path) -> list[Path]:
    return sorted(parts.glob("*/test/*/*.png"))


@pytest.fixture(scope="module")
def expected(deciding: Path, parts: Path, paths: list[Path]) -> Rows:
    """What the detector says about one photograph at a time."""
    detector = Detector.load(deciding / "model.ckpt")
    found = {path: detector.predict(str(path)) for path in paths}
    rows = {str(path.relative_to(parts)): (x.decision, x.score) for path, x in found.items()}
    assert {decision for decision, _ in rows.values()} >= {"ok", "defect"}
    return rows


def check(found: Rows, expected: Rows, tolerance: float = 1e-6) -> None:
    assert {name: row[0] for name, row in found.items()} == {n: r[0] for n, r in expected.items()}
    scores = {name: row[1] for name, row in expected.items()}
    assert {name: row[1] for name, row in found.items()} == pytest.approx(scores, rel=tolerance)


@pytest.mark.parametrize("batch_size", [1, 64])
def test_the_command_predict(
    deciding: Path, parts: Path, expected: Rows, tmp_path: Path, batch_size: int
) -> None:
    words = ["predict", str(deciding / "model.ckpt"), *map(str, parts.glob("*/test"))]
    main([*words, f"--output={tmp_path / 'out'}", f"--batch_size={batch_size}"])
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    found = {
        str(Path(row["image"]).resolve().relative_to(parts.resolve())): (
            row["decision"],
            float(row["score"]),
        )
        for row in rows
    }
    check(found, expected)


def test_the_command_test(deciding: Path, parts: Path, expected: Rows, tmp_path: Path) -> None:
    words = ["test", f"--ckpt_path={deciding / 'model.ckpt'}", f"--data.root={parts}"]
    main([*words, f"--run_dir={tmp_path / 'run'}", "--save_maps"])
    with (tmp_path / "run" / "scores.csv").open(newline="") as file:
        scores = {row["image"]: float(row["score"]) for row in csv.DictReader(file)}
    products = Detector.load(deciding / "model.ckpt").products
    for name, (decision, score) in expected.items():
        assert scores[name] == pytest.approx(score, rel=1e-6)
        if decision in ("ok", "defect"):
            number = products.names.index(Path(name).parts[0])
            limit = products.threshold(number).image
            assert decision == ("defect" if scores[name] > limit else "ok")


@pytest.mark.parametrize(("form", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml")])
def test_an_export(
    deciding: Path,
    parts: Path,
    paths: list[Path],
    expected: Rows,
    tmp_path: Path,
    form: str,
    suffix: str,
) -> None:
    for module in {"onnx": ("onnxscript", "onnxruntime"), "openvino": ("openvino",)}[form]:
        pytest.importorskip(module)
    out = str(tmp_path / f"model{suffix}")
    model = Detector.load(export(str(deciding / "model.ckpt"), format=form, out=out))
    for batch_size in (1, 64):
        answers = model.predict([*map(str, paths)], batch_size=batch_size)
        pairs = zip(paths, answers, strict=True)
        found = {str(path.relative_to(parts)): (x.decision, x.score) for path, x in pairs}
        check(found, expected, 1e-4)


def test_the_service(deciding: Path, parts: Path, paths: list[Path], expected: Rows) -> None:
    pytest.importorskip("fastapi", reason="omiad[serve] is not installed")
    from omiad.serving.app import application  # noqa: PLC0415 (an extra)

    with running(application(Detector.load(deciding / "model.ckpt"))) as port:
        client = Client(port)
        with closing(client.connection):
            _, said = client.post([(path.name, path.read_bytes()) for path in paths])
    pairs = zip(paths, said["photographs"], strict=True)
    found = {str(path.relative_to(parts)): (x["decision"], x["score"]) for path, x in pairs}
    check(found, expected)
