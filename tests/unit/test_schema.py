from typing import Any, Literal, TypedDict

import pytest

from omiad.errors import InputError
from omiad.schema import conform


class Whole(TypedDict):
    number: int
    figures: dict[str, float | None]
    kinds: list[Literal["x", "y"]]


class Part(Whole, total=False):
    pair: tuple[int, str]


GOOD: dict[str, Any] = {"number": 1, "figures": {"auroc": 1, "ap": None}, "kinds": ["x"]}


def test_data_of_the_right_type_are_returned_as_they_are() -> None:
    for data in (GOOD, {**GOOD, "pair": (1, "a"), "more": object()}):
        assert conform(data, Part, where="part") is data


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"number": True}, "part.number"),
        ({"number": 1.0}, "part.number"),
        ({"figures": {"auroc": float("nan")}}, "part.figures.auroc"),
        ({"figures": {3: 1.0}}, "a key of part.figures"),
        ({"figures": []}, "part.figures"),
        ({"kinds": ["x", "z"]}, r"part.kinds\[1\]"),
        ({"pair": (1,)}, "part.pair"),
        ({"pair": (1, 2)}, r"part.pair\[1\]"),
    ],
)
def test_the_first_entry_of_another_type_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=f"^{named}"):
        conform({**GOOD, **change}, Part, where="part")


@pytest.mark.parametrize("data", [None, 3, [], {"number": 1}])
def test_data_without_the_entries_are_refused(data: object) -> None:
    with pytest.raises(InputError, match=r"^part "):
        conform(data, Part, where="part")
