"""The numbers of a run: means with intervals over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradtoken.bench.records import Records
from gradtoken.metrics.bootstrap import Interval, mean_interval, ratio_interval

RATIOS = {
    "pixel_accuracy": [("correct@segmentation", "labelled@segmentation")],
    "mean_iou": [
        ("both@background", "either@background"),
        ("both@foreground", "either@foreground"),
    ],
}
"""Metrics of a data set: the mean over pairs of counts of sum / sum."""

FAILED_METRIC = "failed"
"""The share of images on which a method failed."""
LOWER_IS_BETTER = (
    "coupling",
    "positive",
    "deletion",
    "top1_random",
    "log_odds",
    "randomised",
    "input_shift",
    "road_morf",
    "f_fidelity_minus",
    "max_sensitivity",
    FAILED_METRIC,
)
"""Prefixes of metrics of which less is better; of all others more is better."""


@dataclass(frozen=True)
class Row:
    """One metric of one method, and its interval."""

    method: str
    metric: str
    interval: Interval


def rows(records: Records) -> list[Row]:
    """Mean, 95% bootstrap interval over images and number of instances of every metric.

    Where a method failed on some images, the share of failures of each method is one of them.
    """
    table = []
    failed = records.failures()
    for method in records.methods():
        of_method = records.where(method=method)
        for metric in shown(of_method.metrics()):
            of_metric = of_method.where(metric=metric)
            table.append(Row(method, metric, mean_interval(of_metric.value, of_metric.picture)))
        table += _over_pixels(method, of_method)
        if any(name in records.methods() for name in failed):
            table.append(Row(method, FAILED_METRIC, _failure_rate(of_method)))
    return table


def _failure_rate(records: Records) -> Interval:
    """The share of its images on which a method failed."""
    images = list(dict.fromkeys(records.picture.tolist()))
    missed = set(records.picture[records.reason != ""].tolist())
    values = np.array([image in missed for image in images], dtype=float)
    return mean_interval(values, np.array(images, dtype=object))


def _over_pixels(method: str, records: Records) -> list[Row]:
    """Metrics that are defined over all pixels of a data set, not as a mean over images."""
    table = []
    for name, pairs in RATIOS.items():
        parts = [[records.where(metric=metric) for metric in pair] for pair in pairs]
        if len(parts[0][0].value):
            picture = parts[0][0].picture
            values = [(above.value, below.value) for above, below in parts]
            table.append(Row(method, name, ratio_interval(values, picture)))
    return table


def shown(metrics: Sequence[str]) -> list[str]:
    """The metrics for tables: all but the points of curves and the counts, which have an @."""
    return [metric for metric in metrics if "@" not in metric]
