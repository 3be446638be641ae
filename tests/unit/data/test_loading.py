import pytest
import torch

from omiad.data.loading import PhotographBatch, _collate
from omiad.types import FeatureBatch


@pytest.mark.parametrize("kind", [FeatureBatch, PhotographBatch])
@pytest.mark.parametrize(
    "pinned",
    [
        False,
        pytest.param(
            True, marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
        ),
    ],
)
def test_items_become_a_batch_of_their_kind(kind, pinned):
    items = [kind(torch.full((2, 3, 3), i), torch.tensor(i), torch.tensor(i % 2)) for i in (5, 8)]
    batch = _collate(items, pinned=pinned)
    assert isinstance(batch, kind)
    assert torch.equal(batch[0], torch.stack([items[0][0], items[1][0]]))
    assert batch.index.tolist() == [5, 8]
    assert batch.category.tolist() == [1, 0]
    assert batch[0].is_pinned() == pinned
