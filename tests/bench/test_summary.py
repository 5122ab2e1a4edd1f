"""Tables of known records."""

from __future__ import annotations

import csv
import io

import pytest

from gradtoken.bench.store import Record, Records
from gradtoken.bench.summary import differences, rows, to_csv, to_latex, to_markdown


def known_records() -> Records:
    values = {
        "ours": {"share": [0.9, 0.7, 0.8], "coupling": [-0.5, -0.5, -0.5], "hit@0.1": [1, 0, 1]},
        "theirs": {"share": [0.5, 0.6], "coupling": [0.5, 0.5, 0.5], "hit@0.1": [1, 1, 1]},
    }
    return Records.of(
        Record(f"p{i}", "cat", method, metric, value)
        for method, metrics in values.items()
        for metric, of_images in metrics.items()
        for i, value in enumerate(of_images)
    )


def test_rows_mean_and_instance_count() -> None:
    intervals = {(row.method, row.metric): row.interval for row in rows(known_records())}
    assert intervals["ours", "share"].mean == pytest.approx(0.8)
    assert intervals["theirs", "share"].n == 2
    assert intervals["ours", "coupling"][:3] == (-0.5, -0.5, -0.5)
    table = list(csv.DictReader(io.StringIO(to_csv(rows(known_records())))))
    assert list(table[0]) == ["method", "metric", "mean", "low", "high", "n"]
    assert len(table) == 4


def test_differences_pair_common_instances() -> None:
    intervals = {
        (row.method, row.metric): row.interval for row in differences(known_records(), "ours")
    }
    assert intervals["theirs", "share"].mean == pytest.approx((0.4 + 0.1) / 2)
    assert intervals["theirs", "share"].n == 2
    assert ("ours", "share") not in intervals


def test_tables_mark_best_and_omit_curve_points() -> None:
    text = to_markdown(rows(known_records()), "a run")
    lines = text.splitlines()
    assert lines[0] == "| a run | share | coupling (n=3) |"
    assert lines[2].startswith("| ours | **0.800** [")
    assert "(n=3) | **-0.500** [-0.500, -0.500] |" in lines[2]
    assert "(n=2) | 0.500 [0.500, 0.500] |" in lines[3]
    latex = to_latex(rows(known_records()), "a_run")
    assert r"\caption{a\_run}" in latex
    assert r"\textbf{0.800}" in latex
    assert latex.count(r"\\") == 3


def test_rows_pixel_metrics_are_ratios_of_sums() -> None:
    counts = {
        "correct@segmentation": [3.0, 50.0],
        "labelled@segmentation": [10.0, 100.0],
        "both@background": [1.0, 2.0],
        "either@background": [4.0, 8.0],
        "both@foreground": [5.0, 0.0],
        "either@foreground": [5.0, 5.0],
    }
    records = Records.of(
        Record(f"p{i}", "cat", "ours", name, value)
        for name, values in counts.items()
        for i, value in enumerate(values)
    )
    intervals = {row.metric: row.interval for row in rows(records)}
    assert intervals["pixel_accuracy"].mean == pytest.approx(53 / 110)
    assert intervals["mean_iou"].mean == pytest.approx((3 / 12 + 5 / 10) / 2)
    assert intervals["mean_iou"].low == pytest.approx((2 / 8 + 0) / 2)
