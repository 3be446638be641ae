"""The head of a page: the figures that matter, and how they came about."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from omiad.report.runs import TestedRun
from omiad.report.tables import HEADINGS, num_steps
from omiad.results import measure

_BIG = ("mad", "image_auroc", "pixel_auroc", "aupro")

_METHODS_OWN = "upsampling"
"""The step of a protocol in which methods may differ and still compare."""

_SELECTED = {
    "last": "last (the last checkpoint of its run, not chosen by test data)",
    None: "not known (maps from elsewhere)",
}


def cards(runs: Sequence[TestedRun]) -> str:
    """Return a card for each run: its main figures with intervals, and its circumstances."""
    return f'<div class="cards">{"".join(_card(run, i) for i, run in enumerate(runs))}</div>'


def protocols(runs: Sequence[TestedRun]) -> str:
    """Say how maps, masks and scores were prepared, and whether figures of the runs compare."""
    groups: dict[str, list[TestedRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps(measure(run.record), sort_keys=True), []).append(run)
    parts = []
    if len(groups) > 1:
        parts.append(
            '<p class="warning"><strong>These runs were measured in different ways, so their '
            "figures do not compare.</strong></p>"
        )
    if any(_images(run) != _images(runs[0]) for run in runs):
        counts = "; ".join(
            f"{run.name}: {sum(len(of.name) for of in run.scores.values())} of "
            f"{len(run.scores)} categories"
            for run in runs
        )
        parts.append(
            '<p class="warning"><strong>These runs were tested on different images, so their '
            f"figures do not compare.</strong> {escape(counts)}.</p>"
        )
    for group in groups.values():
        names = ", ".join(run.name for run in group)
        who = f"{escape(names)}: " if len(groups) > 1 else ""
        parts.append(f"<p>{who}{_protocol(group[0].record)}</p>")
    return "".join(parts)


def _images(run: TestedRun) -> set[tuple[str, str, bool]]:
    return {
        (category, *image)
        for category, of in run.scores.items()
        for image in zip(of.name.tolist(), of.is_anomalous.tolist(), strict=True)
    }


def notes(runs: Sequence[TestedRun]) -> str:
    """Say which figures are missing, and why."""
    lines = {
        f"{category}: {note}": None
        for run in runs
        for category, note in (run.record.get("notes") or {}).items()
    }
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="notes" aria-label="Missing figures">{items}</ul>'


def _card(run: TestedRun, number: int) -> str:
    mean = run.record["mean"]
    ranges = (run.record.get("intervals") or {}).get("mean", {})
    figures = []
    for key in _BIG:
        value = mean.get(key)
        shown = "-" if value is None else f"{100 * value:.1f}"
        within = ""
        if value is not None and key in ranges:
            within = f"<small>{100 * ranges[key][0]:.1f} to {100 * ranges[key][1]:.1f}</small>"
        figures.append(f"<div><dt>{HEADINGS[key]}</dt><dd>{shown}{within}</dd></div>")
    facts = "".join(
        f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in _facts(run).items()
    )
    return (
        f'<article class="card s{number % 6}"><h3>{escape(run.name)}</h3>'
        f'<dl class="big">{"".join(figures)}</dl><dl class="facts">{facts}</dl></article>'
    )


def _facts(run: TestedRun) -> dict[str, str]:
    record = run.record
    model, versions = record.get("model", {}), record.get("versions", {})
    selected = record.get("selected_on")
    seed = record.get("seed")
    facts = {
        "data": str(record.get("dataset", "unknown")),
        "run": str(run.path.parent),
        "checkpoint": str(record.get("checkpoint") or "none"),
        "selected on": _SELECTED.get(selected, str(selected)),
        "seed": "-" if seed is None else str(seed),
        "time per image": _time(record.get("latency")),
        "hardware": str(record.get("hardware", "unknown")),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    if model.get("backbone"):
        facts["model"] = (
            f"{model['backbone']} at {model.get('image_size', '?')} pixels, "
            f"{num_steps(record)} from t = {model.get('t_init', '?')}"
        )
    if model.get("maps"):
        facts["maps"] = str(model["maps"])
        facts[_METHODS_OWN] = "the method's own"
    elif made := dict(_steps(record)).get(_METHODS_OWN):
        facts[_METHODS_OWN] = made
    return facts


def _time(latency: Mapping[str, Any] | None) -> str:
    if not latency:
        return "not measured"
    return (
        f"{latency['ms_per_image']:.1f} ms (median of {latency['num_batches']} batches of "
        f"{latency['batch_size']}; {latency['of']})"
    )


def _protocol(record: Mapping[str, Any]) -> str:
    taken = measure(record)
    steps = "; ".join(f"{name}: {step}" for name, step in _steps(record) if name != _METHODS_OWN)
    changed = " (changed)" if taken["protocol_changes"] else ""
    return (
        f"Protocol <strong>{escape(str(taken['protocol']))}</strong>{changed}, "
        f"{escape(str(taken['estimator']))} figures. {escape(steps)}."
    )


def _steps(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, str(step)) for name, step in (record.get("protocol_steps") or {}).items()]
