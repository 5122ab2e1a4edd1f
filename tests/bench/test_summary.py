"""Tables of known records."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from gradtoken.bench.differences import differences
from gradtoken.bench.store import Record, Records
from gradtoken.bench.summary import rows
from gradtoken.bench.tables import to_csv, to_latex, to_markdown, write


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


def separated_records(images: int = 30) -> Records:
    """`worse` is below `ours` in every image, `alike` is above in half of them."""

    def value(method: str, metric: str, i: int) -> float:
        gap = {"ours": 0.0, "worse": 0.2, "alike": 0.1 * (-1) ** i}[method]
        return (0.5 - gap if metric == "share" else gap) + 0.001 * i

    return Records.of(
        Record(f"p{i}", "cat", method, metric, value(method, metric, i))
        for method in ("ours", "worse", "alike")
        for metric in ("share", "coupling")
        for i in range(images)
    )


def test_differences_are_corrected_for_all_comparisons() -> None:
    rows_ = {(d.method, d.metric): d for d in differences(separated_records(), "ours")}
    assert len(rows_) == 4
    smallest = rows_["worse", "share"]
    assert smallest.p < 1e-4
    assert smallest.p_corrected == pytest.approx(4 * smallest.p)
    assert rows_["alike", "share"].p == 1
    assert {key: d.method_is for key, d in rows_.items()} == {
        ("worse", "share"): "worse",
        ("worse", "coupling"): "worse",
        ("alike", "share"): "level",
        ("alike", "coupling"): "level",
    }
    turned = {(d.method, d.metric): d for d in differences(separated_records(), "worse")}
    assert turned["ours", "share"].method_is == turned["ours", "coupling"].method_is == "better"
    assert all(not d.clear for d in differences(separated_records(images=4), "ours"))


def test_differences_of_pixel_metrics() -> None:
    counts = {
        "correct@segmentation": {"ours": [9.0, 8.0], "theirs": [1.0, 2.0]},
        "labelled@segmentation": {"ours": [10.0, 20.0], "theirs": [10.0, 20.0]},
    }
    records = Records.of(
        Record(f"p{i}", "cat", method, metric, value)
        for metric, methods in counts.items()
        for method, values in methods.items()
        for i, value in enumerate(values)
    )
    (row,) = differences(records, "ours")
    assert row.metric == "pixel_accuracy"
    assert row.interval.mean == pytest.approx(17 / 30 - 3 / 30)
    assert row.interval.low == pytest.approx(6 / 20)
    assert row.p == 0.5


def test_tables_say_which_differences_are_clear(tmp_path: Path) -> None:
    paths = write(tmp_path, separated_records(), "ours", "a 100% run")
    assert len(paths) == 6
    summary = (tmp_path / "summary.md").read_text()
    assert summary.count("▼ [") == 2
    assert "▲ [" not in summary
    assert "▼ clearly worse: paired randomisation tests over images, corrected by Holm" in summary
    assert "for all 4 comparisons, at 5%" in summary
    apart = (tmp_path / "differences.md").read_text()
    assert "**0.200** [" in apart
    assert "| alike | 0.000 [" in apart or "| alike | -0.000 [" in apart
    table = list(csv.DictReader((tmp_path / "differences.csv").open()))
    assert [row["clear"] for row in table] == ["yes", "yes", "no", "no"]
    assert float(table[0]["p_holm"]) > float(table[0]["p"]) > 0
    latex = (tmp_path / "summary.tex").read_text()
    assert r"a 100\% run" in latex
    assert latex.count("$^{-}$ [") == 2
    assert "▼" not in latex
