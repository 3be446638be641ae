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
HOSTILE = "a|b_50%&#${}~^--<i>"
HOSTILE_NAMES = [HOSTILE, "[x]", "*", "=1+1", "Mean", "mean"]
VISA = "candle capsules cashew chewinggum fryum macaroni1 macaroni2 pcb1 pcb2 pcb3 pcb4 pipe_fryum"
MPDD = "bracket_black bracket_brown bracket_white connector metal_plate tubes"


NUT = {"nut": SEVEN}
BOTH = {"nut": SEVEN, HOSTILE: {key: 1.0 if "image" in key else None for key in SEVEN}}
"""Two categories: one with all figures, one without masks."""

MEAN = SEVEN | {"image_auroc": 0.95, "image_ap": 0.9, "image_f1_max": 0.85}


def results(
    path: Path,
    rows: dict[str, dict[str, Any]] = NUT,
    mean: dict[str, Any] = SEVEN,
    *,
    rate: float | None = 0.125,
    **more: Any,
) -> Path:
    """Write a results.json with these figures of categories and their mean."""
    rates = {"image_fpr_at_num_anomalous": rate}
    record = {
        **dict.fromkeys(("checkpoint", "selected_on", "seed", "weights", "latency")),
        **dict.fromkeys(("intervals", "views")),
        **{key: {} for key in ("n", "notes", "vanished", "bounds", "versions")},
        "dataset": "parts",
        "root": "parts",
        "hardware": "CPU",
        "protocol": "uniad",
        "protocol_steps": {},
        "protocol_changes": {},
        "estimator": "exact",
        "map_range": [0, 1],
        "digests": {"images": "", "gallery": None},
        "model": {"kind": "OmiAD", "t_init": 500},
        "categories": rows,
        "mean": mean,
        "further": {"categories": dict.fromkeys(rows, rates), "mean": rates},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record | more))
    return path


@pytest.fixture
def fixed(tmp_path: Path) -> Path:
    return results(tmp_path / "fixed" / "results.json", BOTH, MEAN)


def alike(categories: Iterable[str]) -> dict[str, dict[str, float]]:
    return dict.fromkeys(categories, SEVEN)


def written(
    runs: Sequence[Path | str], number: int, folder: Path, suffix: str, *, paper: bool = False
) -> str:
    output = folder / f"table_{number}{suffix}"
    typeset([str(path) for path in runs], table=number, output=str(output), paper=paper)
    return output.read_text()


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(text.splitlines()))


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
        "-{}-\\textless{}i\\textgreater{} & 100.0/100.0/100.0 \\\\\n"
        "\\midrule\n"
        "Mean & 95.0/90.0/85.0 \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
    )


def test_a_pixel_level_table_in_markdown(fixed: Path, tmp_path: Path) -> None:
    assert written([fixed], 5, tmp_path, ".md").splitlines()[2:] == [
        "| Category | OmiAD |",
        "| --- | --- |",
        "| nut | 60.0/50.0/40.0/30.0 |",
        r"| a\|b\_50%\&#\${}\~^--\<i> | - |",
        "| Mean | 60.0/50.0/40.0/30.0 |",
    ]


def test_seeds_of_a_model_give_mean_and_standard_deviation(fixed: Path, tmp_path: Path) -> None:
    # 95 and 85 have the mean 90 and, over one degree of freedom, the deviation sqrt(50) = 7.07.
    other = results(tmp_path / "other.json", BOTH, MEAN | {"image_auroc": 0.85}, rate=0.0625)
    seeds = [fixed.parent, other]  # a folder stands for the file in it
    markdown = written(seeds, 1, tmp_path, ".md")
    assert "mean±standard deviation over runs: OmiAD 2; " in markdown
    assert "| parts | OmiAD | 90.0±7.1 | 90.0±0.0 |" in markdown
    latex = written(seeds, 4, tmp_path, ".tex")
    assert r"Mean & 90.0$\pm$7.1/90.0$\pm$0.0/85.0$\pm$0.0 \\" in latex
    # 12.5 and 6.25 have the mean 9.375 and the deviation 6.25 / sqrt(2) = 4.419.
    assert "| parts | 9.38±4.42 |" in written(seeds, 12, tmp_path, ".md")
    results(other, BOTH, MEAN | {"image_auroc": None})
    assert "| Mean | -/90.0±0.0/85.0±0.0 |" in written(seeds, 4, tmp_path, ".md")


def test_models_of_several_names_are_columns(tmp_path: Path) -> None:
    bank = results(tmp_path / "bank" / "x.json", model={"kind": "maps", "maps": "somewhere"})
    one = results(tmp_path / "a=b" / "results.json")
    two = results(tmp_path / "two" / "results.json")
    markdown = written([bank, f"Ours_2={one.parent}", two], 8, tmp_path, ".md")
    assert "| Category | bank | Ours\\_2 | OmiAD |" in markdown


def test_an_undefined_figure_is_a_dash(tmp_path: Path) -> None:
    undefined = dict.fromkeys(SEVEN)
    file = results(tmp_path / "x.json", {"nut": undefined}, undefined, rate=None)
    assert rows_of(written([file], 1, tmp_path, ".csv"))[1] == ["parts", "OmiAD", *"--------"]
    assert written([file], 4, tmp_path, ".csv") == "Category,OmiAD\nnut,-\nMean,-\n"
    assert written([file], 12, tmp_path, ".csv") == "Dataset,OmiAD\nparts,-\n"


def test_the_title_says_how_the_figures_were_measured(tmp_path: Path) -> None:
    changes = {"pool_size": 8, "upsampling": "its own"}
    file = results(tmp_path / "x.json", protocol_changes=changes, estimator="source")
    assert written([file], 4, tmp_path, ".md").startswith(
        "Table 4, I-AUROC/I-AP/I-F1max in %; protocol uniad, pool\\_size 8; pixel figures as "
        "the protocol's source estimates them.\n"
    )


def test_the_variants_of_an_ablation_are_columns(fixed: Path, tmp_path: Path) -> None:
    variants = {13: ("t_init", "t_init 600"), 14: ("Model", "U-ViT"), 15: ("Backbone", "R18")}
    for number, (label, name) in variants.items():
        text = written([f"{name}={fixed}"], number, tmp_path, ".csv")
        column = name.removeprefix("t_init ")
        assert text == f"{label},{column}\nImage AUROC,95.0\nPixel AUROC,60.0\n"


@pytest.mark.parametrize(("number", "own"), [(6, "90.0/80.0/70.0"), (7, "60.0/50.0/40.0/30.0")])
def test_the_papers_figures_come_first_and_are_marked(
    number: int, own: str, tmp_path: Path
) -> None:
    file = results(tmp_path / "x.json", alike(VISA.split()))
    header, *rows = rows_of(written([file], number, tmp_path, ".csv", paper=True))
    assert header[-2:] == ["OmiAD (paper)", "OmiAD"]
    assert [row[0] for row in rows] == [*categories_of("VisA").values(), "Mean"]
    printed = [cell.figures.values() for cell in paper_table(number) if cell.method == "OmiAD"]
    assert [row[-2] for row in rows] == ["/".join(f"{x:.1f}" for x in cell) for cell in printed]
    assert {row[-1] for row in rows} == {own}


def test_the_papers_data_sets_come_first_in_its_order(fixed: Path, tmp_path: Path) -> None:
    papers = [results(tmp_path / names[:4], alike(names.split())) for names in (MPDD, VISA)]
    files = [fixed, *papers]
    rows = rows_of(written(files, 1, tmp_path, ".csv"))
    assert [row[0] for row in rows[1:]] == ["VisA", "MPDD", "parts"]
    assert written(files, 1, tmp_path, ".tex").count("\\midrule") == 3
    assert rows_of(written(files[1:], 12, tmp_path, ".csv", paper=True)) == [
        ["Dataset", *(f"{m} (paper)" for m in ("HVQ-Trans", "UniAD", "DiAD", "OmiAD")), "OmiAD"],
        ["VisA", "14.58", "14.50", "23.67", "9.50", "12.50"],
        ["MPDD", "19.22", "19.52", "23.07", "10.71", "12.50"],
    ]


def test_the_papers_ablations_and_our_own_share_a_table(tmp_path: Path) -> None:
    file = results(tmp_path / "x.json", alike(map(str.lower, categories_of("MVTec-AD").values())))
    assert written([f"DiT={file}"], 14, tmp_path, ".csv", paper=True).splitlines() == [
        "Model,DiT,U-ViT,U-Net",
        "Image AUROC (paper),98.2,98.4,98.8",
        "Pixel AUROC (paper),97.5,97.4,97.7",
        "Image AUROC,90.0,-,-",
        "Pixel AUROC,60.0,-,-",
    ]
    latex = written([f"DDPM + A-Mask={file}"], 3, tmp_path, ".tex", paper=True)
    assert "DDPM & F-Mask & A-Mask & ADD & Distill & Adv. D. & Results (paper) & Results" in latex
    assert r"$\checkmark$ & - & $\checkmark$ & - & - & - & 98.4/97.5 & 90.0/60.0 \\" in latex
    assert r"$\checkmark$ & $\checkmark$ & - & - & - & - & 97.7/96.8 & - \\" in latex


def test_a_sweep_brings_the_rows_of_a_table(tmp_path: Path) -> None:
    for name in ("adaptive_mask", "adaptive_mask_asd", "dit_asd", "fixed_mask"):
        results(tmp_path / "mvtec" / name / "test" / "part_0" / "results.json")
    sweep = tmp_path / "mvtec"
    rows = rows_of(written([sweep], 1, tmp_path, ".csv"))
    assert [row[1] for row in rows] == ["Method", "AMDM", "OmiAD"]
    assert written([f"Ours={sweep}"], 4, tmp_path, ".csv").startswith("Category,Ours\n")
    assert written([sweep], 14, tmp_path, ".csv").startswith("Model,DiT,U-Net\n")
    assert written([sweep], 3, tmp_path, ".csv").count("90.0/60.0") == 3
    assert written([sweep / "dit_asd"], 12, tmp_path, ".csv") == "Dataset,OmiAD\nparts,12.50\n"


@pytest.mark.parametrize("suffix", [".csv", ".md", ".tex"])
def test_hostile_names_keep_their_row(suffix: str, tmp_path: Path) -> None:
    names = [*HOSTILE_NAMES, "ä€"]
    file = results(tmp_path / "x y=%.json", alike(names))
    model = f"\\{HOSTILE}line\nbreak\x01\udcff"
    lines = written([f"{model}={file}"], 4, tmp_path, suffix).splitlines()
    assert sum("90.0/80.0/70.0" in line for line in lines) == len(names) + 1
    assert any("line break??" in line for line in lines)
    assert suffix != ".csv" or not any(line.startswith("=") for line in lines)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_latex_compiles(tmp_path: Path) -> None:
    file = results(tmp_path / "results.json", alike(HOSTILE_NAMES))
    labels = {1: HOSTILE, 3: "DDPM + ADD", 4: HOSTILE, 13: HOSTILE}
    tables = [written([f"{label}={file}"], n, tmp_path, ".tex") for n, label in labels.items()]
    packages = "\\documentclass{article}\n\\usepackage{booktabs,amssymb}\n\\begin{document}\n"
    (tmp_path / "paper.tex").write_text(packages + "\n".join(tables) + "\\end{document}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout[-2000:]


@pytest.mark.parametrize(
    ("runs", "options", "named"),
    [
        (["gone.json"], {}, "Table 4 at 'gone.json'"),
        (["A=gone.json"], {}, "'gone.json'"),
        (["README.md"], {}, "JSON"),
        (["pyproject.toml"], {}, "'pyproject.toml'"),
        (["{one}", "{one}"], {}, "twice"),
        (["{one}"], {"table": 2}, "Table 2"),
        (["{one}"], {"table": 16}, "Table 16"),
        (["{one}"], {"output": "t.doc"}, r"\.tex"),
        (["{one}"], {"output": "README.md"}, "already exists"),
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
        (["{old}"], {}, "another version of omiad"),
        (["{one}"], {"table": 3}, "'OmiAD'.* DDPM"),
        (["X={sweep}"], {"table": 1}, "AMDM, OmiAD"),
        (["{sweep}"], {"table": 3, "configs": "no"}, "ablation/tables.yaml"),
    ],
)
def test_what_makes_no_table_is_refused(
    runs: list[str], options: dict[str, Any], named: str, tmp_path: Path
) -> None:
    files = {
        "one": results(tmp_path / "one"),
        "more": results(tmp_path / "more", alike(["nut", "bolt"])),
        "ader": results(tmp_path / "ader", protocol="ader"),
        "late": results(tmp_path / "late", model={"kind": "OmiAD", "t_init": 940}),
        "visa": results(tmp_path / "visa", alike(VISA.split())),
        "old": results(tmp_path / "old"),
        "sweep": tmp_path / "sweep",
    }
    files["old"].write_text(files["old"].read_text().replace("further", "more"))
    for row in ("adaptive_mask", "adaptive_mask_asd"):
        results(tmp_path / "sweep" / row / "test" / "part_0" / "results.json")
    options = {"table": 4, "output": str(tmp_path / "t.md")} | options
    with pytest.raises(InputError, match=named):
        typeset([path.format(**files) for path in runs], **options)
    assert not (tmp_path / "t.md").exists()
