import pytest
import torch
from torch import Tensor

from omiad.conformal import threshold
from omiad.errors import InputError
from omiad.products import UNKNOWN, NormalScores, Products, description

NAMES = ("bolt", "nut", "washer")


def photographs(num: int, *, centre: int, generator: torch.Generator) -> Tensor:
    """Descriptions of 6 channels with correlated noise around 10 times a unit vector."""
    mixing = torch.eye(6) + 0.5 * torch.ones(6, 6)
    return 10 * torch.eye(6)[centre] + torch.randn(num, 6, generator=generator) @ mixing


@pytest.fixture
def products(generator: torch.Generator) -> Products:
    described = {
        name: photographs(40, centre=i, generator=generator) for i, name in enumerate(NAMES)
    }
    scores = {
        name: NormalScores(
            torch.rand(20 + i, generator=generator) + i, torch.rand(20 + i, generator=generator)
        )
        for i, name in enumerate(NAMES)
    }
    products = Products(6)
    products.fit(described, scores)
    return products


def test_the_nearest_product_is_recognised_and_a_foreign_one_is_not(
    products: Products, generator: torch.Generator
) -> None:
    for number in range(3):
        new = photographs(200, centre=number, generator=generator)
        assert products.recognise(new).tolist() == [number] * 200
    foreign = photographs(200, centre=4, generator=generator)
    assert products.recognise(foreign).tolist() == [UNKNOWN] * 200
    assert Products(6).recognise(foreign).tolist() == [UNKNOWN] * 200


def test_distances_are_mahalanobis_distances(products: Products) -> None:
    covariance = torch.linalg.inv((products.whitening @ products.whitening.T).double())
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(3))
    steps = (x[:, None] - products.centres).double()
    expected = torch.einsum("bpi,ij,bpj->bp", steps, covariance.inverse(), steps)
    products.limits.fill_(torch.inf)
    assert products.recognise(x).tolist() == expected.argmin(1).tolist()


def test_p_values_and_thresholds_are_those_of_the_photographs_own_product(
    products: Products,
) -> None:
    p = products.p_values(torch.tensor([0.0, 1.0, 9.0, 1.0]), torch.tensor([0, 0, 2, 2]))
    assert p.tolist() == pytest.approx([1, 1 / 21, 1 / 23, 1])
    for number, limit in enumerate(products.thresholds(0.1)):
        assert limit == tuple(threshold(scores, 0.1) for scores in products.normal(number))


def test_the_lowest_rate_is_what_the_photographs_support(products: Products) -> None:
    assert products.rates() == pytest.approx([1 / 21, 1 / 22, 1 / 23])
    assert len(products.thresholds()) == 3
    with pytest.raises(InputError, match=r"'bolt'.*99"):
        products.thresholds(0.01)


def test_products_survive_a_state_dict(products: Products) -> None:
    copy = Products(6)
    copy.load_state_dict(products.state_dict())
    for name, value in products.named_buffers():
        assert torch.equal(copy.get_buffer(name), value)


def test_a_product_without_enough_photographs_is_refused() -> None:
    few = NormalScores(torch.zeros(3), torch.zeros(3))
    with pytest.raises(InputError, match=r"'bolt' .*\(3\)"):
        Products(6).fit({"bolt": torch.zeros(3, 6)}, {"bolt": few})


def test_equal_photographs_are_no_obstacle() -> None:
    same = NormalScores(torch.ones(8), torch.ones(8))
    products = Products(6)
    products.fit({"bolt": torch.ones(8, 6)}, {"bolt": same})
    assert products.recognise(torch.tensor([[1.0] * 6, [0.0] * 6])).tolist() == [0, UNKNOWN]


def test_an_unknown_name_lists_the_products(products: Products) -> None:
    assert products.number("nut") == 1
    with pytest.raises(InputError, match=r"'screw'.*bolt, nut, washer"):
        products.number("screw")


def test_a_description_is_the_mean_over_positions() -> None:
    maps = torch.arange(16.0).view(1, 2, 2, 4)
    assert description(maps.half()).tolist() == [[3.5, 11.5]]


def test_a_product_that_comes_later_changes_no_other(
    products: Products, generator: torch.Generator
) -> None:
    before = {name: value.clone() for name, value in products.state_dict().items()}
    new = photographs(30, centre=3, generator=generator)
    products.update({"pin": new}, {"pin": NormalScores(torch.rand(30), torch.rand(30))})
    assert products.names == [*NAMES, "pin"]
    assert torch.equal(products.whitening, before["whitening"])
    for name in ("centres", "limits", "images", "peaks", "counts"):
        value = getattr(products, name)
        assert torch.equal(value[: len(before[name])], before[name])
    found = products.recognise(photographs(200, centre=3, generator=generator))
    assert found.tolist() == [3] * 200


def test_a_product_is_calibrated_anew_by_its_name(
    products: Products, generator: torch.Generator
) -> None:
    fresh = NormalScores(torch.rand(10), torch.rand(10))
    products.update({"bolt": photographs(10, centre=5, generator=generator)}, {"bolt": fresh})
    assert products.names == ["nut", "washer", "bolt"]
    assert products.counts.tolist() == [21, 22, 10]
    assert torch.equal(products.normal(2).image, fresh.image)
    found = products.recognise(photographs(50, centre=5, generator=generator))
    assert found.tolist() == [2] * 50
