"""What `gradtoken bench` prints: a table for people, one document for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from gradtoken.cli.output import Output

if TYPE_CHECKING:
    from gradtoken.bench.differences import Difference
    from gradtoken.bench.run import Outcome
    from gradtoken.bench.summary import Row

REFERENCE = "gradtoken"
"""The method that the others are compared with."""


def print_results(
    output: Output,
    outcome: Outcome,
    title: str,
    paths: Sequence[Path],
    compared: Sequence[Difference],
) -> None:
    """Print the means, what was left out, and what was written."""
    from gradtoken.bench.summary import rows
    from gradtoken.bench.tables import legend, marks_of

    output.say(_table(rows(outcome.records), title, marks_of(compared)))
    if compared:
        output.say(escape(legend(compared, REFERENCE)), soft_wrap=True)
    for line in _left_out(outcome):
        output.say(escape(line), soft_wrap=True)
    output.say("written: " + escape(", ".join(str(path) for path in paths)), soft_wrap=True)


def document(
    settings: Mapping[str, Any],
    outcome: Outcome,
    paths: Sequence[Path],
    compared: Sequence[Difference],
) -> dict[str, Any]:
    """The results as plain data, for `--json`."""
    from gradtoken.bench.summary import rows

    records = outcome.records
    return {
        "settings": settings,
        "images": len(outcome.images),
        "summary": [_record(row) for row in rows(records)],
        "differences": [
            {**_record(row), "p": row.p, "p_holm": row.p_corrected, "method_is": row.method_is}
            for row in compared
        ],
        "refused": outcome.unsupported,
        "failed": {name: asdict(failure) for name, failure in outcome.failed.items()},
        "left_out": {**asdict(outcome.left_out), "objects": outcome.objects},
        "files": [str(path) for path in paths],
    }


def _left_out(outcome: Outcome) -> Iterator[str]:
    """What of the data set is not measured, and why, a line each."""
    for name, reason in outcome.left_out.names.items():
        yield f"the class {name!r} is not asked about: {reason}."
    for reason, count in outcome.objects.items():
        yield f"objects left out: {count}, {reason}."
    for reason, count in outcome.left_out.images.items():
        yield f"images left out: {count}, {reason}."


def _record(row: Row) -> dict[str, Any]:
    return {"method": row.method, "metric": row.metric, **row.interval._asdict()}


def _table(table: list[Row], title: str, marks: Mapping[tuple[str, str], str]) -> Table:
    """Means and marks only; the intervals are in the files."""
    metrics = dict.fromkeys(row.metric for row in table)
    lines = Table("metric", *dict.fromkeys(row.method for row in table), title=escape(title))
    means = {(row.method, row.metric): row.interval for row in table if row.interval.n}
    for metric in metrics:
        keys = [(str(column.header), metric) for column in lines.columns[1:]]
        lines.add_row(
            metric,
            *(
                f"{means[key].mean:.3f}{marks.get(key, '')}" if key in means else "–"
                for key in keys
            ),
        )
    return lines
