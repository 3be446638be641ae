import numpy as np
import pytest

from omiad.inspection import Inspection, Region, find_regions
from omiad.products import Threshold


def inspection(anomaly_map: np.ndarray, size: tuple[int, int], decision: str) -> Inspection:
    threshold = Threshold(image=1.0, peak=2.0)
    regions = find_regions(anomaly_map, threshold.peak, size)
    return Inspection(decision, "bolt", 3.0, 0.01, threshold, anomaly_map, regions, size)  # type: ignore[arg-type]


@pytest.fixture
def anomaly_map() -> np.ndarray:
    """Two regions: 2 x 3 pixels with a tail that touches at a corner, and a single pixel."""
    values = np.zeros((8, 8), np.float32)
    values[1:3, 2:5] = 3
    values[3, 5] = 5
    values[7, 0] = 9
    return values


def test_regions_have_boxes_and_areas_in_pixels_of_the_photograph(anomaly_map: np.ndarray) -> None:
    assert find_regions(anomaly_map, 2.0, (8, 8)) == [
        Region((0, 7, 1, 8), 1, 9.0),
        Region((2, 1, 6, 4), 7, 5.0),
    ]
    assert find_regions(anomaly_map, 2.0, (16, 4)) == [
        Region((0, 3, 2, 4), 1, 9.0),
        Region((4, 0, 12, 2), 7, 5.0),
    ]
    assert find_regions(anomaly_map, 9.0, (8, 8)) == []


def test_a_mask_has_the_size_of_the_photograph(anomaly_map: np.ndarray) -> None:
    result = inspection(anomaly_map, (8, 8), "defect")
    assert np.array_equal(result.mask(), anomaly_map > 2)
    assert inspection(anomaly_map, (20, 10), "defect").mask().shape == (10, 20)


def test_a_good_photograph_has_no_defective_pixel(anomaly_map: np.ndarray) -> None:
    assert not inspection(anomaly_map, (8, 8), "ok").mask().any()
