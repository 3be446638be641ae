import os
from pathlib import Path

import pytest

from omiad.prediction.watching import PATIENCE, SETTLED, Watch


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def write(folder: Path, content: str, *, second: int) -> None:
    (folder / "a.png").write_text(content)
    os.utime(folder / "a.png", (second, second))


def test_a_file_is_left_until_it_has_not_changed_for_a_while(tmp_path: Path, clock: Clock) -> None:
    class Writer(Clock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if self.now < 5:
                write(tmp_path, "x" * int(10 * self.now), second=int(10 * self.now))

    writer = Writer()
    arrivals = Watch([str(tmp_path)], [], clock=writer, sleep=writer.sleep).arrivals()
    (photograph,) = next(arrivals)
    assert photograph.stamp[0] == 45
    assert 4.5 + SETTLED <= writer.now <= 4.5 + SETTLED + 1


def test_an_unreadable_file_is_final_only_after_some_patience(tmp_path: Path, clock: Clock) -> None:
    write(tmp_path, "half", second=1)
    watch = Watch([str(tmp_path)], [], clock=clock, sleep=clock.sleep)
    arrivals = watch.arrivals()
    (photograph,) = next(arrivals)
    assert not watch.done(photograph, is_unreadable=True)
    (photograph,) = next(arrivals)
    assert clock.now >= PATIENCE
    assert watch.done(photograph, is_unreadable=True)


def test_a_file_is_scored_again_only_if_its_content_changes(tmp_path: Path, clock: Clock) -> None:
    write(tmp_path, "one", second=1)
    watch = Watch([str(tmp_path)], [], clock=clock, sleep=clock.sleep)
    arrivals = watch.arrivals()
    (first,) = next(arrivals)
    assert watch.done(first, is_unreadable=False)
    write(tmp_path, "two", second=2)
    (second,) = next(arrivals)
    assert second.path == first.path
    assert second.stamp != first.stamp


def test_what_an_earlier_run_scored_is_known(tmp_path: Path, clock: Clock) -> None:
    write(tmp_path, "one", second=1)
    path = tmp_path / "a.png"
    known = [(str(path), 3, 10**9)]
    (tmp_path / "b.png").write_text("other")
    (found,) = next(Watch([str(tmp_path)], known, clock=clock, sleep=clock.sleep).arrivals())
    assert found.name == "b.png"
