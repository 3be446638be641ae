import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from omiad.photographs import read_image, read_photograph
from omiad.photographs.opening import opened


def test_a_photograph_comes_with_the_size_that_it_has_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to see it upright
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for name in ("a.png", "a.tif", "a.jpg"):
        Image.fromarray(pixels).save(tmp_path / name, exif=exif)
        photograph, size = read_photograph(tmp_path / name, 8)
        assert size == (20, 30)
        assert torch.equal(photograph, read_image(tmp_path / name, 8))


def test_threads_that_read_leave_the_filters_of_warnings_as_they_were(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    before, both = list(warnings.filters), threading.Barrier(2)

    def enter_first_and_leave_first() -> None:
        with opened(tmp_path / "a.png"):
            both.wait()
            both.wait()

    def enter_second_and_leave_second() -> None:
        both.wait()
        with opened(tmp_path / "a.png"):
            both.wait()
            first.result()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(enter_first_and_leave_first)
        pool.submit(enter_second_and_leave_second).result()
    assert warnings.filters == before
