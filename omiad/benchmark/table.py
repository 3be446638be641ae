"""The figures of `omiad benchmark` on the terminal, and the paper's beside them."""

from collections.abc import Sequence

from rich.table import Table

from omiad.benchmark.speed import Speed
from omiad.paper.printed import METRICS_OF_TABLE, paper_table

PAPER_BATCH = 64
"""Batch size of the paper's Table 2."""


def speed_table(speed: Speed) -> Table:
    """Return the milliseconds of each photograph by part and by batch size."""
    batches = speed["batches"]
    table = Table(title=f"{speed['model']}, ms per photograph", title_justify="left")
    table.add_column("")
    for each in batches:
        table.add_column(f"batch {each['batch_size']}", justify="right")
    decode = _number(speed["decode"]["median_ms"])
    table.add_row("decode and resize, one thread", *[decode for _ in batches], end_section=True)
    for name in batches[0]["parts_ms"]:
        shown = _name(name, speed["num_steps"], is_alone=len(batches[0]["parts_ms"]) == 1)
        table.add_row(shown, *[_number(b["parts_ms"][name] / b["batch_size"]) for b in batches])
    table.add_section()
    for key, text in (("median_ms", "scoring, median"), ("p95_ms", "p95"), ("p99_ms", "p99")):
        row = [_number(b["scoring"][key] / b["batch_size"]) for b in batches]  # type: ignore[literal-required]
        table.add_row(text, *row)
    table.add_row("runs", *[str(b["scoring"]["num_runs"]) for b in batches], end_section=True)
    rates = [_number(1000 * b["batch_size"] / b["scoring"]["median_ms"]) for b in batches]
    table.add_row("photographs per second, scoring", *rates)
    peaks = [b["peak_megabytes"] for b in batches]
    table.add_row("peak memory, MB", *["" if p is None else f"{p:,.0f}" for p in peaks])
    return table


def paper_speeds(speeds: Sequence[Speed]) -> Table:
    """Return Table 2 of the paper, with what was measured here where the batch size is its own."""
    seconds = paper_seconds()
    table = Table(
        title="Paper, Table 2: seconds for a batch of 64, on an RTX 4090",
        title_justify="left",
    )
    table.add_column("")
    for dataset in seconds:
        table.add_column(dataset, justify="right")
    for method in next(iter(seconds.values())):
        table.add_row(method, *[f"{of_set[method]:g}" for of_set in seconds.values()])
    table.add_section()
    for speed in speeds:
        ours = next((b for b in speed["batches"] if b["batch_size"] == PAPER_BATCH), None)
        if ours is not None:
            measured = _number(ours["scoring"]["median_ms"] / 1000)
            table.add_row(f"{speed['model']}, here", measured)
    return table


def paper_seconds() -> dict[str, dict[str, float]]:
    """Return Table 2 as data: seconds for a batch of 64 by data set and method."""
    found: dict[str, dict[str, float]] = {}
    for row in paper_table(2):
        found.setdefault(row.dataset, {})[row.method] = row.figures[METRICS_OF_TABLE[2][0]]
    return found


def _name(part: str, num_steps: int | None, *, is_alone: bool) -> str:
    if is_alone:
        return "one graph"
    steps = "one step" if num_steps == 1 else f"{num_steps} steps"
    return {
        "backbone": "backbone and grid",
        "network": f"network, {steps}",
        "memory": "distance to the memory",
        "product memory": "distance to the product's memory",
        "rest": "map, score, decision",
    }[part]


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
