import torch

from omiad.modules.randomness import SampleDraws

CPU = torch.device("cpu")


def draw(index: list[int], epoch: int = 0, seed: int = 0) -> torch.Tensor:
    draws = SampleDraws(seed=seed, epoch=epoch, index=torch.tensor(index), device=CPU)
    return torch.cat([draws.normal((3,)), draws.uniform((2,)), draws.steps(990)[:, None]], 1)


def test_a_samples_numbers_do_not_depend_on_its_batch() -> None:
    assert torch.equal(draw([4, 7, 9])[1:2], draw([7]))


def test_numbers_differ_between_samples_epochs_and_seeds() -> None:
    rows = torch.cat([draw([7]), draw([8]), draw([7], epoch=1), draw([7], seed=1)])
    assert len(rows[:, 0].unique()) == 4


def test_numbers_have_their_distributions() -> None:
    draws = SampleDraws(seed=0, epoch=0, index=torch.arange(400), device=CPU)
    normal = draws.normal((100,))
    # 40,000 draws: standard errors of 0.005 and 0.0035.
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.015
    steps = draws.steps(990)
    assert steps.min() >= 1
    assert steps.max() <= 990
    assert abs(steps.float().mean() - 495.5) < 60  # standard error 14
