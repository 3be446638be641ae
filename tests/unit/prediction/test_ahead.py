import threading
import time

import pytest

from omiad.prediction.scorer import ahead


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_results_come_in_the_order_of_the_items(num_workers: int) -> None:
    def work(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number**2

    assert [*ahead(work, range(20), num_workers, most=4)] == [i**2 for i in range(20)]


def test_the_work_is_ahead_but_never_by_more_than_asked() -> None:
    done: list[int] = []
    results = ahead(done.append, range(100), 2, most=5)
    next(results)
    deadline = time.monotonic() + 5
    while len(done) < 6 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert sorted(done) == [0, 1, 2, 3, 4, 5]
    results.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("read")]


def test_an_error_in_a_thread_arrives_with_its_item() -> None:
    results = ahead(lambda i: 1 // (2 - i), range(5), 2, most=5)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
