"""`omiad typeset`: tables written by hand from figures chosen here."""

import csv
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from omiad.cli import main
from omiad.metrics import METRICS
from omiad.paper import MEAN, categories_of, paper_table

SEVEN = dict(zip(METRICS, (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3), strict=True)) | {"mad": 0.6}
WITHOUT_MASKS = {key: 1.0 if key.startswith("image") else None for key in SEVEN}
MEAN_OF_BOTH = SEVEN | {"image_auroc": 0.95, "image_ap": 0.9, "image_f1_max": 0.85}
NO_DEFECTS = dict.fromkeys(SEVEN)
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


def typeset(
    results: Sequence[Path | str], table: int, folder: Path, suffix: str, *options: str
) -> str:
    output = folder / f"table_{table}{suffix}"
    files = map(str, results)
    main(["typeset", *files, f"--table={table}", f"--output={output}", *options])
    return output.read_text()


def test_table_1_in_markdown(fixed: Path, tmp_path: Path) -> None:
    assert typeset([fixed], 1, tmp_path, ".md") == (
        "Table 1, I-AUROC/I-AP/I-F1max/P-AUROC/P-AP/P-F1max/AU-PRO/mAD in %; protocol uniad; "
        "parts: P-AUROC, P-AP, P-F1max, AU-PRO, mAD over 1 of 2 categories.\n"
        "\n"
        "| Dataset | Method | I-AUROC | I-AP | I-F1max "
        "| P-AUROC | P-AP | P-F1max | AU-PRO | mAD |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        "| parts | OmiAD | 95.0 | 90.0 | 85.0 | 60.0 | 50.0 | 40.0 | 30.0 | 60.0 |\n"
    )


def test_an_image_level_table_in_latex(fixed: Path, tmp_path: Path) -> None:
    assert typeset([fixed], 4, tmp_path, ".tex") == (
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
    markdown = typeset([fixed], 5, tmp_path, ".md")
    assert markdown.splitlines()[2:] == [
        "| Category | OmiAD |",
        "| --- | --- |",
        "| nut | 60.0/50.0/40.0/30.0 |",
        r"| a\|b\_50%\&#\${}\~^\\--\<i> | - |",
        "| Mean | 60.0/50.0/40.0/30.0 |",
    ]
    rows = list(csv.reader(typeset([fixed], 5, tmp_path, ".csv").splitlines()))
    assert rows == [
        ["Category", "OmiAD"],
        ["nut", "60.0/50.0/40.0/30.0"],
        [HOSTILE, "-"],
        ["Mean", "60.0/50.0/40.0/30.0"],
    ]


def test_seeds_of_a_model_give_mean_and_standard_deviation(fixed: Path, tmp_path: Path) -> None:
    # 95 and 85 have the mean 90 and, over one degree of freedom, the deviation sqrt(50) = 7.07.
    content = json.loads(fixed.read_text())
    content["mean"]["image_auroc"] = 0.85
    content["further"]["mean"]["image_fpr_at_num_anomalous"] = 0.0625
    other = write(tmp_path / "other" / "results.json", content)
    seeds = [fixed.parent, other]  # a folder does as well as the file in it
    markdown = typeset(seeds, 1, tmp_path, ".md")
    assert "mean±standard deviation over runs: OmiAD 2; " in markdown
    assert "| parts | OmiAD | 90.0±7.1 | 90.0±0.0 |" in markdown
    assert r"Mean & 90.0$\pm$7.1/90.0$\pm$0.0/85.0$\pm$0.0 \\" in typeset(
        seeds, 4, tmp_path, ".tex"
    )
    # 12.5 and 6.25: 9.375 and 6.25 / sqrt(2) = 4.419; the paper prints two decimals here.
    assert "| parts | 9.38±4.42 |" in typeset(seeds, 12, tmp_path, ".md")
    content["mean"]["image_auroc"] = None
    write(other, content)
    assert "| Mean | -/90.0±0.0/85.0±0.0 |" in typeset(seeds, 4, tmp_path, ".md")


def test_names_set_models_side_by_side(fixed: Path, tmp_path: Path) -> None:
    maps = {"kind": "maps", "maps": "somewhere", "scores": None}
    bank = write(tmp_path / "bank" / "x.json", record({"nut": SEVEN}, SEVEN, model=maps))
    one = write(tmp_path / "a=b" / "results.json", record({"nut": SEVEN}, SEVEN))
    two = write(tmp_path / "two" / "results.json", record({"nut": SEVEN}, SEVEN))
    table = typeset([bank, f"Ours_2={one.parent}", two], 8, tmp_path, ".md")
    assert "| Category | bank | Ours\\_2 | OmiAD |" in table


@pytest.mark.parametrize("count", [1, 50])
def test_one_category_and_fifty(count: int, tmp_path: Path) -> None:
    names = [f"part {number}" for number in range(count)]
    file = write(tmp_path / "results.json", record(dict.fromkeys(names, SEVEN), SEVEN))
    rows = list(csv.reader(typeset([file], 10, tmp_path, ".csv").splitlines()))
    assert [row[0] for row in rows] == ["Category", *names, "Mean"]
    assert {row[1] for row in rows[1:]} == {"90.0/80.0/70.0"}


def test_without_defects_nothing_is_defined(tmp_path: Path) -> None:
    content = record({"nut": NO_DEFECTS}, NO_DEFECTS, rate=None)
    file = write(tmp_path / "results.json", content)
    assert "| parts | OmiAD | - | - | - | - | - | - | - | - |" in typeset(
        [file], 1, tmp_path, ".md"
    )
    assert typeset([file], 4, tmp_path, ".csv") == "Category,OmiAD\nnut,-\nMean,-\n"
    assert typeset([file], 12, tmp_path, ".csv") == "Dataset,OmiAD\nparts,-\n"


def test_a_row_of_table_3_shows_what_it_is_made_of(fixed: Path, tmp_path: Path) -> None:
    table = typeset([f"DDPM + A-Mask + Adv. D.={fixed}"], 3, tmp_path, ".tex")
    assert "DDPM & F-Mask & A-Mask & ADD & Distill & Adv. D. & Results \\\\" in table
    check = r"$\checkmark$"
    assert f"{check} & - & {check} & - & - & {check} & 95.0/60.0 \\\\" in table


@pytest.mark.parametrize(
    ("number", "name", "header"),
    [(13, "t_init 600", "t_init,600"), (14, "U-ViT", "Model,U-ViT"), (15, "R18", "Backbone,R18")],
)
def test_an_ablation_lays_its_variants_side_by_side(
    number: int, name: str, header: str, fixed: Path, tmp_path: Path
) -> None:
    table = typeset([f"{name}={fixed}"], number, tmp_path, ".csv")
    assert table == f"{header}\nImage AUROC,95.0\nPixel AUROC,60.0\n"


def on_papers(folder: Path, dataset: str, spelling: Sequence[str], **more: Any) -> Path:
    """Write results on one of the paper's data sets, its categories called as on disk."""
    content = record(dict.fromkeys(spelling, SEVEN), SEVEN, dataset=dataset, **more)
    return write(folder / dataset / "results.json", content)


VISA = ["candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2"]
VISA += ["pcb1", "pcb2", "pcb3", "pcb4", "pipe_fryum"]
MPDD = ["bracket_black", "bracket_brown", "bracket_white", "connector", "metal_plate", "tubes"]


@pytest.mark.parametrize("number", [6, 7])
def test_the_papers_figures_stand_beside_ones_own_and_are_marked(
    number: int, tmp_path: Path
) -> None:
    file = on_papers(tmp_path, "VisA", VISA)
    lines = typeset([file], number, tmp_path, ".csv", "--paper=true").splitlines()
    header, *rows = csv.reader(lines)
    assert header[-2:] == ["OmiAD (paper)", "OmiAD"]
    assert [row[0] for row in rows] == [*categories_of("VisA").values(), "Mean"]
    printed = [c.figures for c in paper_table(number) if c.method == "OmiAD"]
    assert [row[-2] for row in rows] == [
        "/".join(f"{x:.1f}" for x in figures.values()) for figures in printed
    ]
    assert {row[-1] for row in rows} == {"90.0/80.0/70.0" if number == 6 else "60.0/50.0/40.0/30.0"}


def test_data_sets_stand_in_the_papers_order_others_after_them(fixed: Path, tmp_path: Path) -> None:
    files = [fixed, on_papers(tmp_path, "MPDD", MPDD), on_papers(tmp_path, "VisA", VISA)]
    rows = list(csv.reader(typeset(files, 1, tmp_path, ".csv").splitlines()))
    assert [row[0] for row in rows[1:]] == ["VisA", "MPDD", "parts"]
    assert typeset(files, 1, tmp_path, ".tex").count("\\midrule") == 3
    rows = list(csv.reader(typeset(files[1:], 12, tmp_path, ".csv", "--paper=true").splitlines()))
    assert rows == [
        ["Dataset", *(f"{m} (paper)" for m in ("HVQ-Trans", "UniAD", "DiAD", "OmiAD")), "OmiAD"],
        ["VisA", "14.58", "14.50", "23.67", "9.50", "12.50"],
        ["MPDD", "19.22", "19.52", "23.07", "10.71", "12.50"],
    ]


def test_the_papers_ablations_stand_beside_ones_own(tmp_path: Path) -> None:
    mvtec = categories_of("MVTec-AD").values()
    file = on_papers(tmp_path, "MVTec AD", [name.lower() for name in mvtec])
    table = typeset([f"DiT={file}"], 14, tmp_path, ".csv", "--paper=true")
    assert table.splitlines() == [
        "Model,DiT,U-ViT,U-Net",
        "Image AUROC (paper),98.2,98.4,98.8",
        "Pixel AUROC (paper),97.5,97.4,97.7",
        "Image AUROC,90.0,-,-",
        "Pixel AUROC,60.0,-,-",
    ]
    table = typeset([f"DDPM + A-Mask={file}"], 3, tmp_path, ".csv", "--paper=true")
    assert table.splitlines()[2:4] == ["✓,✓,-,-,-,-,97.7/96.8,-", "✓,-,✓,-,-,-,98.4/97.5,90.0/60.0"]
    assert {r.category for r in paper_table(14)} == {MEAN}


def test_sweeps_bring_the_rows_of_a_table(tmp_path: Path) -> None:
    for name in ("adaptive_mask", "adaptive_mask_asd", "dit_asd", "fixed_mask"):
        part = tmp_path / "sweeps" / "mvtec" / name / "test" / "part_0" / "results.json"
        kind = "OmiAD" if name.endswith("asd") else "AMDM"
        write(part, record({"nut": SEVEN}, SEVEN, model={"kind": kind}))
    sweep = tmp_path / "sweeps" / "mvtec"
    rows = [r.split(",") for r in typeset([sweep], 1, tmp_path, ".csv").splitlines()]
    assert [row[1] for row in rows] == ["Method", "AMDM", "OmiAD"]
    assert typeset([f"Ours={sweep}"], 4, tmp_path, ".csv").startswith("Category,Ours\n")
    assert typeset([sweep], 14, tmp_path, ".csv").startswith("Model,DiT,U-Net\n")
    assert typeset([sweep], 3, tmp_path, ".csv").count("90.0/60.0") == 3
    row = typeset([sweep / "dit_asd"], 12, tmp_path, ".csv")
    assert row == "Dataset,OmiAD\nparts,12.50\n"


HOSTILE_NAMES = ["[x]", "*", "=1+1", "ä€", "line\nbreak\x01", "\udcff", "Mean", "mean", "\\"]


@pytest.mark.parametrize("suffix", [".csv", ".md", ".tex"])
def test_hostile_names_keep_their_row(suffix: str, tmp_path: Path) -> None:
    names = [HOSTILE, *HOSTILE_NAMES]
    file = write(tmp_path / "x y=%.json", record(dict.fromkeys(names, SEVEN), SEVEN))
    lines = typeset([f"{HOSTILE}={file}"], 4, tmp_path, suffix).splitlines()
    assert sum("90.0/80.0/70.0" in line for line in lines) == len(names) + 1
    assert any("line break?" in line for line in lines)


def has_tex() -> bool:
    """Return whether there is a LaTeX with the packages of the tables."""
    if shutil.which("pdflatex") is None or shutil.which("kpsewhich") is None:
        return False
    return not subprocess.run(["kpsewhich", "booktabs.sty"], check=False).returncode


@pytest.mark.skipif(not has_tex(), reason="no pdflatex with booktabs here")
@pytest.mark.parametrize("number", [1, 3, 4, 13])
def test_latex_compiles(number: int, tmp_path: Path) -> None:
    names = [HOSTILE, *(name for name in HOSTILE_NAMES if name.isascii())]
    file = write(tmp_path / "results.json", record(dict.fromkeys(names, SEVEN), SEVEN))
    label = "DDPM + ADD" if number == 3 else HOSTILE
    table = typeset([f"{label}={file}"], number, tmp_path, ".tex")
    document = (
        "\\documentclass{article}\n\\usepackage{booktabs,amssymb}\n\\begin{document}\n"
        f"{table}\\end{{document}}\n"
    )
    (tmp_path / "paper.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout[-2000:]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["gone.json"], "No results for Table 4 at 'gone.json'. Give a results.json"),
        (["A=gone.json"], "No results for Table 4 at 'gone.json'"),
        (["README.md"], "is not JSON"),
        (["tests/goldens/option_names.json"], "holds no results of omiad"),
        (["{one}", "{one}"], "is given twice"),
        (["{one}", "--table=2"], "Table 2 is not made of results; choose 1, or 3 to 15."),
        (["{one}", "--table=16"], "Table 16 is not made of results"),
        (["{one}", "--output=t.doc"], "'t.doc' is no table. End --output in .csv, .md, .tex."),
        (["{one}", "--output={one}.md"], "is there already. Choose another --output."),
        (["{one}", "--output=no/such/t.md"], "No folder 'no/such' to write 't.md' in. Make it"),
        (["{one}", "--output={one}/t.md"], "cannot be written (Not a directory)"),
        (["{one}", "--paper=true"], "The paper has no figures on parts. Leave --paper out."),
        (["{visa}", "{one}", "--table=1", "--paper=true"], "The paper has no figures on parts"),
        (["{visa}", "--table=3", "--paper=true"], "The paper's Table 3 has no figures on VisA."),
        (["{visa}"], "Table 4 is of MVTec-AD, but '{visa}' of VisA. Choose that data set's table."),
        (["{one}", "{visa}"], "Table 4 is of one data set, but the runs are of VisA, parts."),
        (["{one}", "{ader}"], "measured with protocol uniad, '{ader}' with ader. Evaluate both"),
        (["{one}", "{more}"], "but '{more}' bolt, nut. Take runs on the same data."),
        (["{one}", "{late}"], "both called OmiAD, but differ in t_init: 500 and 940. Call them"),
        (
            ["{old}"],
            "'{old}' is of an older version and lacks the figures of Table 12. Test again.",
        ),
        (["{one}", "--table=3"], "'OmiAD' is no row of Table 3, whose rows are made of DDPM,"),
        (["X={sweep}", "--table=1"], "holds several runs (AMDM, OmiAD), which cannot all be"),
        (["{sweep}", "--table=3", "--configs=no"], "No 'ablation/tables.yaml' in 'no'. Run from"),
    ],
)
def test_what_makes_no_table_is_explained(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nut = {"nut": SEVEN}
    contents = {
        "one": record(nut, SEVEN),
        "more": record({"nut": SEVEN, "bolt": SEVEN}, SEVEN),
        "ader": record(nut, SEVEN, protocol="ader"),
        "late": record(nut, SEVEN, model={"kind": "OmiAD", "t_init": 940}),
        "visa": record(dict.fromkeys(VISA, SEVEN), SEVEN, dataset="VisA"),
    }
    contents["old"] = {key: value for key, value in contents["one"].items() if key != "further"}
    files = {name: write(tmp_path / name, content) for name, content in contents.items()}
    (tmp_path / "one.md").touch()
    for row in ("adaptive_mask", "adaptive_mask_asd"):
        write(tmp_path / "sweep" / row / "test" / "part_0" / "results.json", contents["one"])
    files["sweep"] = tmp_path / "sweep"
    defaults = ["--table=4", f"--output={tmp_path / 't.md'}"]
    with pytest.raises(SystemExit) as exit_info:
        main(["typeset", *defaults, *(argument.format(**files) for argument in arguments)])
    assert exit_info.value.code == 2
    assert sentence.format(**files) in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "t.md").exists()
