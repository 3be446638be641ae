import pytest
import torch

from omiad.data.loading import PhotographBatch, collate
from omiad.types import FeatureBatch, Labels, ScoringBatch

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("kind", [FeatureBatch, PhotographBatch])
@pytest.mark.parametrize("pinned", [False, pytest.param(True, marks=needs_gpu)])
def test_items_become_a_batch_of_their_kind(kind, pinned):
    items = [kind(torch.full((2, 3, 3), i), torch.tensor(i), torch.tensor(i % 2)) for i in (5, 8)]
    batch = collate(items, pinned=pinned)
    assert isinstance(batch, kind)
    assert torch.equal(batch[0], torch.stack([items[0][0], items[1][0]]))
    assert batch.index.tolist() == [5, 8]
    assert batch.category.tolist() == [1, 0]
    assert batch[0].is_pinned() == pinned


def test_items_are_written_once_and_into_pinned_memory(monkeypatch):
    empty, made = torch.empty, []

    def without_a_gpu(*args, pin_memory, **kwargs):
        assert pin_memory
        made.append(empty(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(torch, "empty", without_a_gpu)
    features, flag = torch.arange(48).reshape(2, 2, 3, 4).half(), torch.tensor([True, False])
    items = [
        ScoringBatch(x, Labels(y, y[None], y, torch.tensor(7), torch.tensor(0)))
        for x, y in zip(features, flag, strict=True)
    ]
    batch = collate(items, pinned=True)
    assert [x.data_ptr() for x in (batch.features, *batch.labels)] == [x.data_ptr() for x in made]
    assert torch.equal(batch.features, features)
    assert batch.labels.masks.tolist() == [[True], [False]]
    assert batch.labels.index.tolist() == [7, 7]
