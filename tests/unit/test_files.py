import errno
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from omiad.errors import InputError
from omiad.files import (
    expanded,
    full_disk_named,
    only_writer,
    whole_file,
    whole_folder,
    write_whole,
)


def test_a_file_is_replaced_only_by_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_whole(path, "old")
    with suppress(ZeroDivisionError), whole_file(path) as temporary:
        temporary.write_text("half of the n")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    write_whole(path, b"new")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_a_folder_appears_with_everything_in_it_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "set"
    with suppress(ZeroDivisionError), whole_folder(path) as temporary:
        (temporary / "a").write_text("a")
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []
    with whole_folder(path) as temporary:
        (temporary / "a").write_text("a")
        assert not path.exists()
    assert os.listdir(path) == ["a"]
    with pytest.raises(InputError, match="set"), whole_folder(path):
        pass


def test_a_full_disk_is_named_and_other_errors_are_left(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.txt.*full"), full_disk_named(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PermissionError), full_disk_named(tmp_path / "a.txt"):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_the_home_of_an_unknown_user_is_a_folder_that_is_missing() -> None:
    assert expanded("~/x") == Path.home() / "x"
    assert expanded("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


def test_a_second_process_cannot_write_to_the_same_folder(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from omiad.files import only_writer\n"
        "with only_writer(Path(sys.argv[1]), owner=Path('out')): print('both')"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "lock")]
    with only_writer(tmp_path / "lock", owner=tmp_path):
        second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode != 0
    assert "Another process is writing to 'out'" in second.stderr
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "both\n"
