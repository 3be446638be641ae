"""`RayScorer` decides as `omiad predict` does, in this process and in two workers of Ray."""

from pathlib import Path

import numpy as np
import pytest

from omiad import Detector, RayScorer
from omiad.errors import InputError


def test_the_files_of_a_batch_get_the_rows_of_predict(deciding: Path) -> None:
    paths = [deciding / "photo.png", Path(__file__), deciding / "hole.png"]
    contents = np.array([path.read_bytes() for path in paths], dtype=object)
    scorer = RayScorer(str(deciding / "model.ckpt"), device="cpu")
    rows = scorer({"path": np.array([*map(str, paths)]), "bytes": contents})
    good, hole = Detector.load(deciding / "model.ckpt").predict([paths[0], paths[2]])
    assert rows["score"][[0, 2]].tolist() == [good.score, hole.score]
    assert rows["p_value"][[0, 2]].tolist() == [good.p_value, hole.p_value]
    assert rows["decision"].tolist() == ["ok", "unreadable", "defect"]
    assert rows["product"].tolist() == ["bolt", "", "bolt"]
    assert "test_ray.py' cannot be read as an image" in rows["error"][1]
    assert np.isnan(rows["score"][1])


def test_a_product_that_the_model_does_not_know_is_refused(deciding: Path) -> None:
    with pytest.raises(InputError, match="screw"):
        RayScorer(str(deciding / "model.ckpt"), category="screw", device="cpu")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_two_workers_of_ray_decide_as_one_process(
    deciding: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="omiad[ray] is not installed")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    model, paths = deciding / "model.ckpt", sorted((deciding / "parts").rglob("test/*/*.png"))
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    try:
        files = ray.data.read_binary_files([*map(str, paths)], include_paths=True)
        rows = files.repartition(4).map_batches(
            RayScorer, fn_constructor_args=[str(model)], batch_size=2, concurrency=2
        )
        found = {row["path"]: row for row in rows.take_all()}
    finally:
        ray.shutdown()
    assert {*found} == {*map(str, paths)}
    for path, result in zip(paths, Detector.load(model).predict([*paths]), strict=True):
        row = found[str(path)]
        assert (row["score"], row["decision"]) == (result.score, result.decision)
