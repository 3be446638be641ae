"""The head of a page: the main figures of each run, and how they were measured."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from omiad.report.charts import COLOURS
from omiad.report.runs import Runs, TestedRun
from omiad.report.tables import FIGURES, rows_of
from omiad.results import measure

_SELECTED = {
    "last": "last (the last checkpoint of the run; test data did not choose it)",
    None: "unknown (the maps come from another method)",
}


def summary(runs: Runs) -> dict[str, Any]:
    """Return what the template of the summary shows."""
    return {
        "cards": [
            {"mean": rows_of(run)[0], "facts": _facts(run), "colour": colour}
            for run, colour in zip(runs.tested, cycle(COLOURS), strict=False)
        ],
        "main": ("mad", "image_auroc", "pixel_auroc", "aupro"),
        "differences": _differences(runs.tested),
        "protocols": _protocols(runs.tested),
        "notes": dict.fromkeys(
            f"{category}: {note}"
            for run in runs.tested
            for category, note in (run.record.get("notes") or {}).items()
        ),
        "pairs": [_pair(teacher, student) for teacher, student in runs.pairs],
    }


def _differences(runs: Sequence[TestedRun]) -> list[tuple[str, str]]:
    """Return why the figures of the runs cannot be compared: what differs, and details."""
    found = []
    if any(measure(run.record) != measure(runs[0].record) for run in runs):
        found.append(("measured in different ways", ""))
    images = [
        {(name, image) for name, scores in run.scores.items() for image in scores.name.tolist()}
        for run in runs
    ]
    if any(other != images[0] for other in images):
        counts = (
            f"{run.name}: {len(tested)} images of {len(run.scores)} categories"
            for run, tested in zip(runs, images, strict=True)
        )
        found.append(("tested on different images", f"{'; '.join(counts)}."))
    return found


def _protocols(runs: Sequence[TestedRun]) -> dict[str, str]:
    """Say how maps, masks and scores were prepared, by the names of the runs that agree."""
    groups: dict[str, list[TestedRun]] = defaultdict(list)
    for run in runs:
        groups[json.dumps(measure(run.record), sort_keys=True)].append(run)
    found = {}
    for group in groups.values():
        record, taken = group[0].record, measure(group[0].record)
        steps = [
            f"{name}: {step}"
            for name, step in (record.get("protocol_steps") or {}).items()
            if name != "upsampling"  # may differ between methods; see `measure`
        ]
        changed = " (changed)" if taken["protocol_changes"] else ""
        found[", ".join(run.name for run in group)] = (
            f"protocol {taken['protocol']}{changed}, {taken['estimator']} figures; "
            f"{'; '.join(steps)}."
        )
    return found


def _facts(run: TestedRun) -> dict[str, Any]:
    record, model = run.record, run.record.get("model", {})
    seed, selected = record.get("seed"), record.get("selected_on")
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
        where = f"at {model.get('image_size', '?')} pixels"
        steps = f"{_num_steps(run)} from t = {model.get('t_init', '?')}"
        facts["model"] = f"{model['backbone']} {where}, {steps}"
    if model.get("maps"):
        facts |= {"maps": model["maps"], "upsampling": "by the method"}
    elif upsampling := (record.get("protocol_steps") or {}).get("upsampling"):
        facts["upsampling"] = upsampling
    return facts


def _time(latency: Mapping[str, Any] | None) -> str:
    if not latency:
        return "not measured"
    return (
        f"{latency['ms_per_image']:.1f} ms (median of {latency['num_batches']} batches of "
        f"{latency['batch_size']}; {latency['of']})"
    )


def _num_steps(run: TestedRun) -> str:
    count = run.record.get("model", {}).get("num_steps", "unknown number of")
    return "one step" if count == 1 else f"{count} steps"


def _pair(teacher: TestedRun, student: TestedRun) -> dict[str, Any]:
    """Return the means of teacher and student, their differences, and the time of each."""
    before, after = (rows_of(run)[0].figures for run in (teacher, student))
    rows = [
        (heading, before[key], after[key], f"{round(after[key] - before[key], 1) + 0.0:+.1f}")
        for key, heading in FIGURES.items()
        if key in before and key in after
    ]
    slow, fast = (run.record.get("latency") or {} for run in (teacher, student))
    if slow and fast:
        times = slow["ms_per_image"], fast["ms_per_image"]
        is_comparable = slow["batch_size"] == fast["batch_size"] and teacher.record.get(
            "hardware"
        ) == student.record.get("hardware")
        ratio = f"{times[0] / times[1]:.2f} times as fast"
        rows.append(("ms per image", *times, ratio if is_comparable else "measured differently"))
    return {
        "teacher": f"{teacher.name} (teacher), {_num_steps(teacher)}",
        "student": f"{student.name} (student), {_num_steps(student)}",
        "rows": rows,
        "is_timed": bool(slow and fast),
    }
