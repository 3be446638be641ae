from pathlib import Path

import pytest
import torch
from predicted import batch_of

from omiad.evaluation.evaluator import Evaluator
from omiad.evaluation.options import EvaluationOptions
from omiad.scoring import map_scale
from omiad.types import Sample

SAMPLES = [Sample(Path(f"{i}.png"), (), "a", "good", "test") for i in range(4)]


@pytest.mark.parametrize(
    ("anomalous", "shown"),
    [([False, True, True, False], [0, 3]), ([True] * 4, [0, 1, 2, 3])],
)
def test_the_scale_is_that_of_normal_maps_if_there_are_any_and_a_replay_does_not_move_it(
    anomalous: list[bool], shown: list[int], generator: torch.Generator
) -> None:
    options = EvaluationOptions(image_size=8, pool_size=1, tolerance=0)
    protocol = options.build_protocol()
    evaluator = Evaluator(SAMPLES, Path(), protocol, options)
    prediction, labels = batch_of(anomalous, generator)
    evaluator.add(prediction.anomaly_map, labels)
    expected = map_scale(prediction.anomaly_map[shown])
    evaluator.compute(replay=lambda: evaluator.add(100 + prediction.anomaly_map, labels))
    assert evaluator.map_scale() == expected
