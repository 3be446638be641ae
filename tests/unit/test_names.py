import pytest
from hypothesis import given
from hypothesis import strategies as st

from omiad.errors import InputError
from omiad.names import cell, check_name, one_line, printable


@given(st.text())
def test_no_control_character_reaches_the_terminal(text: str) -> None:
    assert all(each.isprintable() or each == "\n" for each in printable(text))
    assert "\n" not in one_line(text)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_of_a_table_is_a_formula(text: str) -> None:
    assert cell(text) == f"'{text}"
    assert cell("bolt=1") == "bolt=1"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "/abs/x", "a\\b", "a\x1b[2J", "a\nb", "a\udcffb", " a", "é" * 101],
)
def test_a_name_that_no_folder_can_have_is_refused_where_it_stands(name: str) -> None:
    with pytest.raises(InputError, match=r"1cls\.csv"):
        check_name(name, kind="category", where="1cls.csv")


@pytest.mark.parametrize("name", ["bolt", "[new]", "mean", "Schraube 4x8 ä", "=1+1", "a.b"])
def test_odd_but_harmless_names_are_kept(name: str) -> None:
    assert check_name(name, kind="category", where="1cls.csv") == name
