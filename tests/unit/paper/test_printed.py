"""The paper's tables agree with one another, except for the mistakes listed here."""

import pytest

from omiad.errors import InputError
from omiad.paper.printed import MEAN, METRICS_OF_TABLE, PaperRow, paper_table

ROUNDING = 0.1 + 1e-9
"""Half of the last digit of the entries, plus half of the last digit of their mean."""

TABLES_OF_DATASET = {"MVTec-AD": (4, 5), "VisA": (6, 7), "MPDD": (8, 9), "Real-IAD": (10, 11)}
NUM_CATEGORIES = {"MVTec-AD": 15, "VisA": 12, "MPDD": 6, "Real-IAD": 30}

WRONG_MEANS = {
    # (table, method, metric): (printed, mean of the printed categories)
    (5, "RD4AD", "pixel_ap"): (48.6, 46.59),
    (5, "RD4AD", "pixel_f1_max"): (53.8, 52.58),
    (5, "UniAD", "pixel_auroc"): (96.8, 92.43),
    (5, "UniAD", "pixel_ap"): (43.4, 39.23),
    (5, "UniAD", "pixel_f1_max"): (49.5, 45.21),
    (5, "SimpleNet", "pixel_ap"): (45.9, 43.94),
    (7, "DeSTSeg", "pixel_f1_max"): (43.4, 40.90),
    (11, "SimpleNet", "pixel_f1_max"): (6.5, 7.13),
}

UNEQUAL_TO_TABLE_1 = {("VisA", "UniAD")}
"""All seven figures differ between Table 1 and Tables 6 and 7."""


GAINS = {
    ("MVTec-AD", "DiAD"): 1.5,
    ("MVTec-AD", "HVQ-Trans"): 2.0,
    ("VisA", "DiAD"): 13.1,
    ("VisA", "HVQ-Trans"): 4.1,
    ("MPDD", "DiAD"): 23.3,
    ("MPDD", "HVQ-Trans"): 9.7,
    ("Real-IAD", "DiAD"): 45.1,
    ("Real-IAD", "HVQ-Trans"): 6.9,
}
"""Gains of OmiAD over other methods in %, which Section 4.2 states."""


def means(number: int) -> dict[tuple[str, str], PaperRow]:
    return {(r.dataset, r.method): r for r in paper_table(number) if r.category == MEAN}


def test_every_cell_holds_the_numbers_of_its_table() -> None:
    for number in METRICS_OF_TABLE:
        rows = paper_table(number)
        assert len({row[:4] for row in rows}) == len(rows) > 0
        for row in rows:
            assert all(0 <= value <= 100 for value in row.figures.values()), row


def test_a_cell_is_kept_as_printed() -> None:
    row = next(r for r in paper_table(9) if (r.category, r.method) == ("Metal Plate", "OmiAD"))
    assert row.printed == "98.5/87.4/83.8/93.4"
    assert row.figures["pixel_ap"] == 87.4


def test_printed_means_are_those_of_the_categories_except_the_listed() -> None:
    wrong = {}
    for number in range(4, 12):
        for (dataset, method), mean in means(number).items():
            cells = [cell for cell in paper_table(number) if cell.method == method]
            rows = [cell.figures for cell in cells if cell.category != MEAN]
            assert len(rows) == NUM_CATEGORIES[dataset]
            for metric, printed in mean.figures.items():
                computed = sum(row[metric] for row in rows) / len(rows)
                if abs(computed - printed) > ROUNDING:
                    wrong[number, method, metric] = (printed, round(computed, 2))
    assert wrong == WRONG_MEANS


def test_mad_is_the_mean_of_the_seven() -> None:
    for row in paper_table(1):
        *seven, mad = row.figures.values()
        assert abs(sum(seven) / 7 - mad) <= ROUNDING, row


def test_table_1_repeats_the_means_of_the_appendix_except_the_listed() -> None:
    differ = set()
    for (dataset, method), row in means(1).items():
        if method == "AMDM":  # missing in Tables 4 to 11
            continue
        images, pixels = (means(number)[dataset, method] for number in TABLES_OF_DATASET[dataset])
        if row.figures != images.figures | pixels.figures | {"mad": row.figures["mad"]}:
            differ.add((dataset, method))
    assert differ == UNEQUAL_TO_TABLE_1


def test_an_ablation_repeats_the_figures_of_table_1() -> None:
    repeated = {
        (3, "DDPM + A-Mask"): "AMDM",
        (3, "DDPM + A-Mask + Distill + Adv. D."): "OmiAD",
        (13, "t_init 960"): "OmiAD",
        (14, "U-Net"): "OmiAD",
        (15, "EfficientNet"): "OmiAD",
    }
    for (number, row), method in repeated.items():
        whole = means(1)["MVTec-AD", method].figures
        assert means(number)["MVTec-AD", row].figures.items() <= whole.items(), (number, row)


def test_gains_of_section_4_2_are_relative_gains_in_mad() -> None:
    mad = {key: row.figures["mad"] for key, row in means(1).items()}
    ours = {(name, rival): mad[name, "OmiAD"] / mad[name, rival] - 1 for name, rival in GAINS}
    assert {key: 100 * gain for key, gain in ours.items()} == pytest.approx(GAINS, abs=0.051)


def test_section_4_4_says_nearly_200_times_faster_than_ddad_where_table_2_gives_236() -> None:
    seconds = {
        row.method: row.figures["seconds_per_batch_of_64"]
        for row in paper_table(2)
        if row.dataset == "MVTec-AD"
    }
    ratio = {method: value / seconds["OmiAD"] for method, value in seconds.items()}
    assert round(ratio["DDAD"]) == 236
    assert 7 < ratio["HVQ-Trans"] < ratio["UniAD"] < 8  # as printed


@pytest.mark.parametrize("number", [0, 16])
def test_a_table_that_the_paper_does_not_have_is_refused(number: int) -> None:
    with pytest.raises(InputError, match=f"got {number}"):
        paper_table(number)
