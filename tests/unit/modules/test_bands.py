import torch

from omiad.modules.diagnostics import TimestepBands


def test_each_step_falls_into_its_band() -> None:
    bands = TimestepBands(990)
    assert bands.names == ["t1_248", "t249_495", "t496_742", "t743_990"]
    bands.update(torch.tensor([1, 248, 249, 990]), torch.tensor([1.0, 3.0, 5.0, 7.0]))
    assert bands.means() == {"t1_248": 2.0, "t249_495": 5.0, "t743_990": 7.0}


def test_means_gather_batches_and_begin_anew() -> None:
    bands = TimestepBands(10, num_bands=2)
    bands.update(torch.tensor([1]), torch.tensor([1.0]))
    bands.update(torch.tensor([5, 6]), torch.tensor([3.0, 8.0], requires_grad=True))
    assert bands.means() == {"t1_5": 2.0, "t6_10": 8.0}
    assert bands.means() == {}
