"""The head of a page: the main figures of each run, and how they were measured."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from omiad.report.runs import Runs, TestedRun
from omiad.report.tables import FIGURES, Row, num_steps
from omiad.results import measure

_MAIN = ("mad", "image_auroc", "pixel_auroc", "aupro")

_SELECTED = {
    "last": "last (the last checkpoint of the run; test data did not choose it)",
    None: "unknown (the maps come from another method)",
}


def summary(runs: Runs, rows: Sequence[Row]) -> dict[str, Any]:
    """Return what the template of the summary needs.

    Args:
        runs: The runs.
        rows: All rows of figures.
    """
    means = {row.method: row.cells for row in rows if row.category == "mean" and not row.is_papers}
    keys = list(FIGURES)
    cards = [
        {
            "name": run.name,
            "figures": {FIGURES[key]: means[run.name][keys.index(key)] for key in _MAIN},
            "facts": _facts(run),
        }
        for run in runs.tested
    ]
    return {
        "cards": cards,
        "differences": _differences(runs.tested),
        "protocols": _protocols(runs.tested),
        "notes": dict.fromkeys(
            f"{category}: {note}"
            for run in runs.tested
            for category, note in (run.record.get("notes") or {}).items()
        ),
        "pairs": [_pair(teacher, student) for teacher, student in runs.pairs],
    }


def _differences(runs: Sequence[TestedRun]) -> dict[str, str]:
    """Return why the figures of the runs cannot be compared, each reason with its details."""
    found = {}
    if len({json.dumps(measure(run.record), sort_keys=True) for run in runs}) > 1:
        found["These runs were measured in different ways, so their figures do not compare."] = ""
    images = [
        {(name, image) for name, of in run.scores.items() for image in of.name.tolist()}
        for run in runs
    ]
    if any(other != images[0] for other in images):
        counts = [
            f"{run.name}: {len(of_run)} images of {len(run.scores)} categories"
            for run, of_run in zip(runs, images, strict=True)
        ]
        reason = "These runs were tested on different images, so their figures do not compare."
        found[reason] = f"{'; '.join(counts)}."
    return found


def _protocols(runs: Sequence[TestedRun]) -> list[dict[str, str]]:
    """Say how maps, masks and scores were prepared, once for all runs that agree."""
    groups: dict[str, list[TestedRun]] = defaultdict(list)
    for run in runs:
        groups[json.dumps(measure(run.record), sort_keys=True)].append(run)
    found = []
    for group in groups.values():
        record = group[0].record
        steps = dict(record.get("protocol_steps") or {})
        steps.pop("upsampling", None)  # may differ between methods; see `measure`
        found.append({
            "runs": ", ".join(run.name for run in group) if len(groups) > 1 else "",
            "name": str(record["protocol"]),
            "changed": " (changed)" if measure(record)["protocol_changes"] else "",
            "estimator": str(measure(record)["estimator"]),
            "steps": "; ".join(f"{name}: {step}" for name, step in steps.items()),
        })  # fmt: skip
    return found


def _facts(run: TestedRun) -> dict[str, str]:
    record = run.record
    model, seed, selected = record.get("model", {}), record.get("seed"), record.get("selected_on")
    facts = {
        "data": record.get("dataset", "unknown"),
        "run": run.path.parent,
        "checkpoint": record.get("checkpoint") or "none",
        "selected on": _SELECTED.get(selected, selected),
        "seed": "-" if seed is None else seed,
        "time per image": _time(record.get("latency")),
        "hardware": record.get("hardware", "unknown"),
        "versions": ", ".join(f"{name} {v}" for name, v in record.get("versions", {}).items()),
    }
    if model.get("backbone"):
        size, start = model.get("image_size", "?"), model.get("t_init", "?")
        facts["model"] = (
            f"{model['backbone']} at {size} pixels, {num_steps(record)} from t = {start}"
        )
    upsampling = (record.get("protocol_steps") or {}).get("upsampling")
    if model.get("maps"):
        facts |= {"maps": model["maps"], "upsampling": "by the method"}
    elif upsampling:
        facts["upsampling"] = upsampling
    return {name: str(fact) for name, fact in facts.items()}


def _time(latency: Mapping[str, Any] | None) -> str:
    if not latency:
        return "not measured"
    return (
        f"{latency['ms_per_image']:.1f} ms (median of {latency['num_batches']} batches of "
        f"{latency['batch_size']}; {latency['of']})"
    )


def _pair(teacher: TestedRun, student: TestedRun) -> dict[str, Any]:
    """Return the means of teacher and student, their differences, and the time of each."""
    rows = []
    for key, heading in FIGURES.items():
        before, after = (run.record["mean"].get(key) for run in (teacher, student))
        if before is not None and after is not None:
            gain = round(100 * (after - before), 1) + 0.0  # no "-0.0"
            rows.append((heading, f"{100 * before:.1f}", f"{100 * after:.1f}", f"{gain:+.1f}"))
    slow, fast = (run.record.get("latency") or {} for run in (teacher, student))
    if slow and fast:
        before, after = slow["ms_per_image"], fast["ms_per_image"]
        is_comparable = (
            teacher.record.get("hardware") == student.record.get("hardware")
            and slow["batch_size"] == fast["batch_size"]
        )
        gain = f"{before / after:.2f} times as fast" if is_comparable else "measured differently"
        rows.append(("ms per image", f"{before:.1f}", f"{after:.1f}", gain))
    return {
        "names": [teacher.name, student.name],
        "steps": [num_steps(run.record) for run in (teacher, student)],
        "rows": rows,
        "is_timed": bool(slow and fast),
    }
