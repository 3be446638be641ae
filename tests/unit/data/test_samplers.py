from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from omiad.data.sampling import EpochSampler, EvaluationSampler, kept_out
from omiad.errors import InputError
from omiad.types import Sample


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed: int, epoch: int) -> list[int]:
        torch.rand(1)
        sampler = EpochSampler(20, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    orders = [order(seed, epoch) for seed in (0, 1, 2**32) for epoch in (0, 1)]
    assert all(sorted(o) == list(range(20)) for o in orders)
    assert len({tuple(o) for o in orders}) == 6
    assert order(1, 1) == orders[3]


def test_processes_share_an_epoch_without_overlap_and_equally():
    shares = [EpochSampler(11, seed=0, rank=rank, world_size=3) for rank in range(3)]
    assert [len(share) for share in shares] == [len(list(share)) for share in shares] == [3, 3, 3]
    assert len({i for share in shares for i in share}) == 9


def test_fewer_images_than_processes_are_refused():
    with pytest.raises(InputError, match=r"2 training images .* 3 processes"):
        EpochSampler(2, seed=0, world_size=3)


def test_balanced_epochs_draw_of_every_group_as_many_as_the_smallest_has():
    groups = np.array([0] * 10 + [1] * 3 + [2] * 50)
    sampler = EpochSampler(63, seed=0, groups=groups)
    assert len(sampler) == sampler.num_samples == 9
    seen = set()
    for epoch in range(300):
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert len(set(order)) == 9
        assert np.bincount(groups[order]).tolist() == [3, 3, 3]
        seen |= set(order)
    assert seen == set(range(63))


def test_balanced_epochs_are_shared_like_natural_ones():
    groups = np.array([0] * 10 + [1] * 3)
    shares = [list(EpochSampler(13, seed=0, groups=groups, rank=r, world_size=2)) for r in (0, 1)]
    assert [len(share) for share in shares] == [3, 3]
    assert sorted(shares[0] + shares[1]) == sorted(EpochSampler(13, seed=0, groups=groups))


@pytest.mark.parametrize(("num_samples", "world_size"), [(12, 1), (10, 3), (2, 4), (0, 2)])
def test_evaluation_visits_every_image_exactly_once(num_samples, world_size):
    shares = [
        EvaluationSampler(num_samples, rank=r, world_size=world_size) for r in range(world_size)
    ]
    visited = [i for share in shares for i in share]
    assert sorted(visited) == list(range(num_samples))
    assert [len(share) for share in shares] == [len(list(share)) for share in shares]


def test_a_share_of_every_large_category_is_kept_out_of_training():
    def names(num: int, category: str) -> list[Sample]:
        paths = [Path(category) / f"{i:03}.png" for i in range(num)]
        return [Sample(path, None, category, "good", "train") for path in paths]

    samples = [*names(100, "bolt"), *names(39, "nut"), *names(40, "washer")]
    kept = kept_out(samples, 0.3)
    assert Counter(x.category for x in kept) == {"bolt": 30, "washer": 12}
    assert {x.image for x in kept_out(samples[::-1], 0.3)} == {x.image for x in kept}
    more = kept_out([*names(101, "bolt")], 0.3)
    assert len({x.image for x in more} - {x.image for x in kept}) <= 1
    assert kept_out(samples, 0) == []
