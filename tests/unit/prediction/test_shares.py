"""How several processes share photographs: their numbers, their journals, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from omiad.errors import InputError
from omiad.prediction import predict
from omiad.prediction.journal import Journal, SharedJournals, journal_name
from omiad.prediction.ranks import Ranks, Share

ROW: dict[str, Any] = {
    **dict.fromkeys(("product", "score", "p_value", "threshold", "entry")),
    **dict.fromkeys(("overlay", "mask", "map", "error"), ""),
    "decision": "ok",
    "stamp": [0, 0],
    "regions": [],
}


def test_a_row_whose_page_entry_is_damaged_is_scored_again(tmp_path: Path) -> None:
    path = tmp_path / "predictions.part"
    journal = Journal(path, {})
    for name, entry in (("a.png", None), ("b.png", {"name": "b"})):
        journal.add({**ROW, "image": name, "entry": entry})  # type: ignore[typeddict-item]
    assert [row["image"] for row in Journal(path, {}).rows()] == ["a.png"]


@pytest.mark.parametrize("count", [0, 1, 4, 5])
def test_rows_of_several_processes_come_in_the_order_of_the_photographs(
    tmp_path: Path, count: int
) -> None:
    journals = [Journal(tmp_path / journal_name(rank), {}) for rank in range(3)]
    names = [f"{number}.png" for number in range(count)]
    for rank, journal in enumerate(journals):
        share = Share(rank, 3)
        for name in names[rank::3]:
            assert name == f"{share.number(journal.num_rows)}.png"
            journal.add({**ROW, "image": name})  # type: ignore[typeddict-item]
    whole = SharedJournals(journals)
    assert whole.num_rows == count
    assert [row["image"] for row in whole.rows()] == names
    whole.remove()
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"trainer": Ranks(devices=0)}, "--trainer.devices"),
        ({"trainer": Ranks(num_nodes=0)}, "--trainer.num_nodes"),
        ({"trainer": Ranks(2), "device": "cuda:1"}, "--device cuda:1"),
        ({"trainer": Ranks(2), "watch": True}, "--watch"),
    ],
)
def test_processes_that_cannot_share_are_refused(
    deciding: Path, tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    photograph, output = str(deciding / "photo.png"), tmp_path / "out"
    with pytest.raises(InputError, match=named):
        predict(str(deciding / "model.ckpt"), [photograph], output=str(output), **options)
    assert not output.exists()
