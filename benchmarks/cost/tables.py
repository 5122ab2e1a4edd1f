"""Results as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.cost.reach import Reach

Row = dict[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def reach_table(reaches: Iterable[Reach]) -> str:
    """Reach and reached, side by side."""
    return table(
        ("metric", "reach", "reached", ""),
        (
            (
                reach.metric,
                f"{'≤' if reach.at_most else '≥'} {reach.limit:g}",
                f"{reach.reached:.3f}",
                "yes" if reach.met else "**no**",
            )
            for reach in reaches
        ),
    )


def methods_table(rows: Sequence[Row]) -> str:
    """Time and memory of each method, a column for each model and batch."""
    cases = list(dict.fromkeys((row["model"], row["batch"]) for row in rows))
    cells = {(row["method"], row["model"], row["batch"]): row for row in rows}
    ours = {row["method"]: row["ours"] for row in rows}
    names = sorted(ours, key=lambda name: (name != "forward", not ours[name], _time(cells, name)))
    return table(
        ("method", *(f"{model}, batch {batch}" for model, batch in cases)),
        (
            (name, *(_cell(cells.get((name, model, batch))) for model, batch in cases))
            for name in names
        ),
    )


def _time(cells: dict[tuple[str, str, int], Row], name: str) -> float:
    return float(cells.get((name, "ViT-B/16", 1), {}).get("time", 1e9))


def _cell(row: Row | None) -> str:
    if row is None or "time" not in row:
        return "–"
    return f"{row['time']:.2f} / {row['memory']:.1f}"


def failures_list(rows: Sequence[Row]) -> str:
    """Why a package did not run, once for each reason."""
    why: dict[str, list[str]] = {}
    for row in rows:
        if "failure" in row:
            why.setdefault(f"{row['method']}: {row['failure']}", []).append(row["model"])
    return "\n".join(
        f"- {reason} ({', '.join(dict.fromkeys(models))})" for reason, models in why.items()
    )


def plain_table(rows: Sequence[Row]) -> str:
    """Rows as they are."""
    return table(list(rows[0]), ([_text(value) for value in row.values()] for row in rows))


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
