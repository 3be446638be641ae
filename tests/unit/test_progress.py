import logging

import pytest

from omiad.progress import Progress, duration, track


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_the_time_left_follows_from_the_pace_of_this_run() -> None:
    clock = Clock()
    with Progress("stage 1", 1200, unit="step", done=100, clock=clock) as progress:
        assert progress.text == "step 100 of 1,200"
        clock.seconds = 60
        progress.update(340)
        assert progress.text == "step 340 of 1,200, 4 min left"
        progress.update(1201)
        assert progress.text == "step 1,200 of 1,200"


def test_without_a_terminal_a_line_is_logged_every_half_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO), Progress("test", 100, clock=clock) as progress:
        for done in range(1, 101):
            clock.seconds += 1
            progress.update(done)
    assert [record.getMessage() for record in caplog.records] == [
        "test: image 30 of 100, 70 s left",
        "test: image 60 of 100, 40 s left",
        "test: image 90 of 100, 10 s left",
    ]


def test_tracked_items_are_the_items() -> None:
    assert list(track("abc", "letters")) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (5400, "1 h 30 min")]
)
def test_a_duration_is_said_as_a_person_says_it(seconds: float, said: str) -> None:
    assert duration(seconds) == said
