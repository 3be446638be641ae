"""`omiad typeset`: results chosen here, and the tables that follow from them by hand."""

import csv
import json
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from omiad.errors import InputError
from omiad.metrics import METRICS
from omiad.paper import categories_of, paper_table
from omiad.paper.typeset import typeset

SEVEN = dict(zip(METRICS, (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3), strict=True)) | {"mad": 0.6}
WITHOUT_MASKS = {key: 1.0 if key.startswith("image") else None for key in SEVEN}
MEAN_OF_BOTH = SEVEN | {"image_auroc": 0.95, "image_ap": 0.9, "image_f1_max": 0.85}
HOSTILE = r"a|b_50%&#${}~^\--<i>"


def record(
    categories: dict[str, dict[str, float | None]],
    mean: dict[str, float | None],
    *,
    dataset: str = "parts",
    rate: float | None = 0.125,
    **more: Any,
) -> dict[str, Any]:
    rates = {"image_fpr_at_num_anomalous": rate}
    return {
        "dataset": dataset,
        "protocol": "uniad",
        "protocol_changes": {},
        "estimator": "exact",
        "model": {"kind": "OmiAD", "t_init": 500},
        "categories": categories,
        "mean": mean,
        "further": {"categories": dict.fromkeys(categories, rates), "mean": rates},
        **more,
    }


def write(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def fixed(tmp_path: Path) -> Path:
    """Two categories: one with all figures, one without masks."""
    both = {"nut": SEVEN, HOSTILE: WITHOUT_MASKS}
    return write(tmp_path / "fixed" / "results.json", record(both, MEAN_OF_BOTH))


def written(
    results: Sequence[Path | str], number: int, folder: Path, suffix: str, *, paper: bool = False
) -> str:
    output = folder / f"table_{number}{suffix}"
    typeset([str(path) for path in results], table=number, output=str(output), paper=paper)
    return output.read_text()


def test_table_1_in_markdown(fixed: Path, tmp_path: Path) -> None:
    assert written([fixed], 1, tmp_path, ".md") == (
        "Table 1, I-AUROC/I-AP/I-F1max/P-AUROC/P-AP/P-F1max/AU-PRO/mAD in %; protocol uniad; "
        "parts: P-AUROC, P-AP, P-F1max, AU-PRO, mAD over 1 of 2 categories.\n"
        "\n"
        "| Dataset | Method | I-AUROC | I-AP | I-F1max "
        "| P-AUROC | P-AP | P-F1max | AU-PRO | mAD |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        "| parts | OmiAD | 95.0 | 90.0 | 85.0 | 60.0 | 50.0 | 40.0 | 30.0 | 60.0 |\n"
    )


def test_an_image_level_table_in_latex(fixed: Path, tmp_path: Path) -> None:
    assert written([fixed], 4, tmp_path, ".tex") == (
        "% Table 4, I-AUROC/I-AP/I-F1max in %; protocol uniad.\n"
        "% \\usepackage{booktabs,amssymb}\n"
        "\\begin{tabular}{lc}\n"
        "\\toprule\n"
        "Category & OmiAD \\\\\n"
        "\\midrule\n"
        "nut & 90.0/80.0/70.0 \\\\\n"
        "a\\textbar{}b\\_50\\%\\&\\#\\$\\{\\}\\textasciitilde{}\\textasciicircum{}"
        "\\textbackslash{}-{}-\\textless{}i\\textgreater{} & 100.0/100.0/100.0 \\\\\n"
        "\\midrule\n"
        "Mean & 95.0/90.0/85.0 \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
    )


def test_a_pixel_level_table_in_markdown_and_csv(fixed: Path, tmp_path: Path) -> None:
    assert written([fixed], 5, tmp_path, ".md").splitlines()[2:] == [
        "| Category | OmiAD |",
        "| --- | --- |",
        "| nut | 60.0/50.0/40.0/30.0 |",
        r"| a\|b\_50%\&#\${}\~^\\--\<i> | - |",
        "| Mean | 60.0/50.0/40.0/30.0 |",
    ]
    assert rows_of(written([fixed], 5, tmp_path, ".csv")) == [
        ["Category", "OmiAD"],
        ["nut", "60.0/50.0/40.0/30.0"],
        [HOSTILE, "-"],
        ["Mean", "60.0/50.0/40.0/30.0"],
    ]


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(text.splitlines()))


def test_seeds_of_a_model_give_mean_and_standard_deviation(fixed: Path, tmp_path: Path) -> None:
    # 95 and 85 have the mean 90 and, over one degree of freedom, the deviation sqrt(50) = 7.07.
    content = json.loads(fixed.read_text())
    content["mean"]["image_auroc"] = 0.85
    content["further"]["mean"]["image_fpr_at_num_anomalous"] = 0.0625
    other = write(tmp_path / "other" / "results.json", content)
    seeds = [fixed.parent, other]  # a folder stands for the file in it
    markdown = written(seeds, 1, tmp_path, ".md")
    assert "mean±standard deviation over runs: OmiAD 2; " in markdown
    assert "| parts | OmiAD | 90.0±7.1 | 90.0±0.0 |" in markdown
    latex = written(seeds, 4, tmp_path, ".tex")
    assert r"Mean & 90.0$\pm$7.1/90.0$\pm$0.0/85.0$\pm$0.0 \\" in latex
    # 12.5 and 6.25 have the mean 9.375 and the deviation 6.25 / sqrt(2) = 4.419.
    assert "| parts | 9.38±4.42 |" in written(seeds, 12, tmp_path, ".md")
    content["mean"]["image_auroc"] = None
    write(other, content)
    assert "| Mean | -/90.0±0.0/85.0±0.0 |" in written(seeds, 4, tmp_path, ".md")


def test_models_of_several_names_are_columns(fixed: Path, tmp_path: Path) -> None:
    maps = {"kind": "maps", "maps": "somewhere", "scores": None}
    bank = write(tmp_path / "bank" / "x.json", record({"nut": SEVEN}, SEVEN, model=maps))
    one = write(tmp_path / "a=b" / "results.json", record({"nut": SEVEN}, SEVEN))
    two = write(tmp_path / "two" / "results.json", record({"nut": SEVEN}, SEVEN))
    markdown = written([bank, f"Ours_2={one.parent}", two], 8, tmp_path, ".md")
    assert "| Category | bank | Ours\\_2 | OmiAD |" in markdown


def test_an_undefined_figure_is_a_dash(tmp_path: Path) -> None:
    undefined = dict.fromkeys(SEVEN)
    file = write(tmp_path / "x.json", record({"nut": undefined}, undefined, rate=None))
    assert rows_of(written([file], 1, tmp_path, ".csv"))[1] == ["parts", "OmiAD", *"--------"]
    assert written([file], 4, tmp_path, ".csv") == "Category,OmiAD\nnut,-\nMean,-\n"
    assert written([file], 12, tmp_path, ".csv") == "Dataset,OmiAD\nparts,-\n"


def test_a_row_of_table_3_shows_its_parts(fixed: Path, tmp_path: Path) -> None:
    latex = written([f"DDPM + A-Mask + Adv. D.={fixed}"], 3, tmp_path, ".tex")
    assert "DDPM & F-Mask & A-Mask & ADD & Distill & Adv. D. & Results \\\\" in latex
    check = r"$\checkmark$"
    assert f"{check} & - & {check} & - & - & {check} & 95.0/60.0 \\\\" in latex


@pytest.mark.parametrize(
    ("number", "name", "header"),
    [(13, "t_init 600", "t_init,600"), (14, "U-ViT", "Model,U-ViT"), (15, "R18", "Backbone,R18")],
)
def test_the_variants_of_an_ablation_are_columns(
    number: int, name: str, header: str, fixed: Path, tmp_path: Path
) -> None:
    text = written([f"{name}={fixed}"], number, tmp_path, ".csv")
    assert text == f"{header}\nImage AUROC,95.0\nPixel AUROC,60.0\n"


def on_papers(folder: Path, dataset: str, spelling: Iterable[str]) -> Path:
    """Write results on one of the paper's data sets, with its folders' spelling."""
    content = record(dict.fromkeys(spelling, SEVEN), SEVEN, dataset=dataset)
    return write(folder / dataset / "results.json", content)


VISA = ["candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2"]
VISA += ["pcb1", "pcb2", "pcb3", "pcb4", "pipe_fryum"]
MPDD = ["bracket_black", "bracket_brown", "bracket_white", "connector", "metal_plate", "tubes"]


@pytest.mark.parametrize(("number", "own"), [(6, "90.0/80.0/70.0"), (7, "60.0/50.0/40.0/30.0")])
def test_the_papers_figures_come_first_and_are_marked(
    number: int, own: str, tmp_path: Path
) -> None:
    file = on_papers(tmp_path, "VisA", VISA)
    header, *rows = rows_of(written([file], number, tmp_path, ".csv", paper=True))
    assert header[-2:] == ["OmiAD (paper)", "OmiAD"]
    assert [row[0] for row in rows] == [*categories_of("VisA").values(), "Mean"]
    printed = [cell.figures.values() for cell in paper_table(number) if cell.method == "OmiAD"]
    assert [row[-2] for row in rows] == ["/".join(f"{x:.1f}" for x in cell) for cell in printed]
    assert {row[-1] for row in rows} == {own}


def test_the_papers_data_sets_come_first_in_its_order(fixed: Path, tmp_path: Path) -> None:
    files = [fixed, on_papers(tmp_path, "MPDD", MPDD), on_papers(tmp_path, "VisA", VISA)]
    rows = rows_of(written(files, 1, tmp_path, ".csv"))
    assert [row[0] for row in rows[1:]] == ["VisA", "MPDD", "parts"]
    assert written(files, 1, tmp_path, ".tex").count("\\midrule") == 3
    assert rows_of(written(files[1:], 12, tmp_path, ".csv", paper=True)) == [
        ["Dataset", *(f"{m} (paper)" for m in ("HVQ-Trans", "UniAD", "DiAD", "OmiAD")), "OmiAD"],
        ["VisA", "14.58", "14.50", "23.67", "9.50", "12.50"],
        ["MPDD", "19.22", "19.52", "23.07", "10.71", "12.50"],
    ]


def test_the_papers_ablations_and_our_own_share_a_table(tmp_path: Path) -> None:
    mvtec = categories_of("MVTec-AD").values()
    file = on_papers(tmp_path, "MVTec AD", map(str.lower, mvtec))
    assert written([f"DiT={file}"], 14, tmp_path, ".csv", paper=True).splitlines() == [
        "Model,DiT,U-ViT,U-Net",
        "Image AUROC (paper),98.2,98.4,98.8",
        "Pixel AUROC (paper),97.5,97.4,97.7",
        "Image AUROC,90.0,-,-",
        "Pixel AUROC,60.0,-,-",
    ]
    text = written([f"DDPM + A-Mask={file}"], 3, tmp_path, ".csv", paper=True)
    assert text.splitlines()[2:4] == ["✓,✓,-,-,-,-,97.7/96.8,-", "✓,-,✓,-,-,-,98.4/97.5,90.0/60.0"]


def test_a_sweep_brings_the_rows_of_a_table(tmp_path: Path) -> None:
    sweep = tmp_path / "sweeps" / "mvtec"
    for name in ("adaptive_mask", "adaptive_mask_asd", "dit_asd", "fixed_mask"):
        part = sweep / name / "test" / "part_0" / "results.json"
        write(part, record({"nut": SEVEN}, SEVEN))
    rows = rows_of(written([sweep], 1, tmp_path, ".csv"))
    assert [row[1] for row in rows] == ["Method", "AMDM", "OmiAD"]
    assert written([f"Ours={sweep}"], 4, tmp_path, ".csv").startswith("Category,Ours\n")
    assert written([sweep], 14, tmp_path, ".csv").startswith("Model,DiT,U-Net\n")
    assert written([sweep], 3, tmp_path, ".csv").count("90.0/60.0") == 3
    assert written([sweep / "dit_asd"], 12, tmp_path, ".csv") == "Dataset,OmiAD\nparts,12.50\n"


HOSTILE_NAMES = ["[x]", "*", "=1+1", "ä€", "line\nbreak\x01", "\udcff", "Mean", "mean", "\\"]


@pytest.mark.parametrize("suffix", [".csv", ".md", ".tex"])
def test_hostile_names_keep_their_row(suffix: str, tmp_path: Path) -> None:
    names = [HOSTILE, *HOSTILE_NAMES]
    file = write(tmp_path / "x y=%.json", record(dict.fromkeys(names, SEVEN), SEVEN))
    lines = written([f"{HOSTILE}={file}"], 4, tmp_path, suffix).splitlines()
    assert sum("90.0/80.0/70.0" in line for line in lines) == len(names) + 1
    assert any("line break?" in line for line in lines)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_latex_compiles(tmp_path: Path) -> None:
    names = [HOSTILE, *filter(str.isascii, HOSTILE_NAMES)]
    file = write(tmp_path / "results.json", record(dict.fromkeys(names, SEVEN), SEVEN))
    labels = {1: HOSTILE, 3: "DDPM + ADD", 4: HOSTILE, 13: HOSTILE}
    tables = [written([f"{label}={file}"], n, tmp_path, ".tex") for n, label in labels.items()]
    packages = "\\documentclass{article}\n\\usepackage{booktabs,amssymb}\n\\begin{document}\n"
    (tmp_path / "paper.tex").write_text(packages + "\n".join(tables) + "\\end{document}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout[-2000:]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Files that cannot share a table, and a sweep."""
    nut = {"nut": SEVEN}
    one = record(nut, SEVEN)
    contents = {
        "one": one,
        "more": record({"nut": SEVEN, "bolt": SEVEN}, SEVEN),
        "ader": record(nut, SEVEN, protocol="ader"),
        "late": record(nut, SEVEN, model={"kind": "OmiAD", "t_init": 940}),
        "visa": record(dict.fromkeys(VISA, SEVEN), SEVEN, dataset="VisA"),
        "old": {key: value for key, value in one.items() if key != "further"},
    }
    for row in ("adaptive_mask", "adaptive_mask_asd"):
        write(tmp_path / "sweep" / row / "test" / "part_0" / "results.json", one)
    written = {name: write(tmp_path / name, content) for name, content in contents.items()}
    return {**written, "sweep": tmp_path / "sweep"}


@pytest.mark.parametrize(
    ("results", "options", "named"),
    [
        (["gone.json"], {}, "Table 4 at 'gone.json'"),
        (["A=gone.json"], {}, "'gone.json'"),
        (["README.md"], {}, "JSON"),
        (["pyproject.toml"], {}, "'pyproject.toml'"),
        (["{one}", "{one}"], {}, "twice"),
        (["{one}"], {"table": 2}, "Table 2"),
        (["{one}"], {"table": 16}, "Table 16"),
        (["{one}"], {"output": "t.doc"}, r"\.tex"),
        (["{one}"], {"output": "README.md"}, "File exists"),
        (["{one}"], {"output": "no/such/t.md"}, "No such file"),
        (["{one}"], {"output": "README.md/t.md"}, "Not a directory"),
        (["{one}"], {"paper": True}, "--paper"),
        (["{visa}", "{one}"], {"table": 1, "paper": True}, "--paper"),
        (["{visa}"], {"table": 3, "paper": True}, "no figures on VisA"),
        (["{visa}"], {}, "MVTec-AD.* VisA"),
        (["{one}", "{visa}"], {}, "VisA, parts"),
        (["{one}", "{ader}"], {}, "protocol uniad.* ader"),
        (["{one}", "{more}"], {}, "categories"),
        (["{one}", "{late}"], {}, "t_init: 500 and 940"),
        (["{old}"], {}, "another version"),
        (["{one}"], {"table": 3}, "'OmiAD'.* DDPM"),
        (["X={sweep}"], {"table": 1}, "AMDM, OmiAD"),
        (["{sweep}"], {"table": 3, "configs": "no"}, "ablation/tables.yaml"),
    ],
)
def test_what_makes_no_table_is_refused(
    results: list[str],
    options: dict[str, Any],
    named: str,
    files: dict[str, Path],
    tmp_path: Path,
) -> None:
    options = {"table": 4, "output": str(tmp_path / "t.md")} | options
    with pytest.raises(InputError, match=named):
        typeset([path.format(**files) for path in results], **options)
    assert not (tmp_path / "t.md").exists()
