"""Metrics of one method on one image, in groups that the command line names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from gradtoken.bench.cases import Case
from gradtoken.bench.maps import Maps, maps_of
from gradtoken.errors import TargetError
from gradtoken.metrics import class_sensitivity, insertion_deletion, perturbation, segmentation
from gradtoken.metrics.localization import Coverage, token_ap
from gradtoken.trace.record import record

MetricValues: TypeAlias = dict[str, dict[str, float]]
"""Values by metric, then by object."""

_CURVE_STEPS = 14
"""Steps of the insertion and deletion curves."""
_TENTHS = tuple(step / 10 for step in range(1, 11))


def localization(maps: Maps) -> MetricValues:
    """Pointing, token AP, share and energy of each object; no share with one class only."""
    values = by_object(maps)
    if len(set(maps.case.classes)) < 2:
        values.pop("share", None)
    return values


def by_object(maps: Maps) -> MetricValues:
    """Pointing, token AP, share and energy of each object; none without masks."""
    masks = maps.case.masks
    if masks is None:
        return {}
    coverage = Coverage.of_masks(masks, maps.case.trace.patch_grid, maps.case.ignore)
    values = coverage.metrics(maps.tokens)
    values["token_ap"] = token_ap(maps.flat.double(), coverage.tokens, coverage.counted)
    names = ("pointing", "token_ap", "share", "energy")
    return {name: _named(maps.case, values[name]) for name in names}


def coupling(maps: Maps) -> MetricValues:
    """`present_coupling`, repeated for each object.

    None with fewer than two classes or a constant map.
    """
    try:
        value = present_coupling(maps)
    except TargetError:
        return {}
    return {"coupling": dict.fromkeys(maps.case.names, value)}


def present_coupling(maps: Maps) -> float:
    """Mean correlation of the maps of every two classes present.

    Raises:
        TargetError: fewer than two classes, or a constant map.
    """
    return class_sensitivity.present_coupling(maps.flat, maps.case.classes)


def top1_random(maps: Maps) -> MetricValues:
    """Correlation of the leading class's map with that of an absent class.

    None where the model has no other class.
    """
    if maps.absent is None:
        return {}
    absent = maps.absent.flatten()[None]
    leading = _leading(maps.case)
    value = class_sensitivity.correlation(maps.flat[leading][None], absent)
    return {"top1_random": {maps.case.names[leading]: float(value)}}


def segment(maps: Maps) -> MetricValues:
    """AP of every pixel, and the counts for pixel accuracy and mean IoU.

    Of signed maps the positive part counts, as in unsigned ones.
    """
    masks, ignore = maps.case.masks, maps.case.ignore
    if masks is None:
        return {}
    ignored = None if ignore is None else ignore[None].expand_as(masks)
    positive = maps.pixels.clamp_min(0)
    overlap = segmentation.overlap(positive, masks, ignored)
    values = {
        "segmentation_ap": segmentation.average_precision(positive, masks, ignored),
        "correct@segmentation": overlap.correct,
        "labelled@segmentation": overlap.labelled,
        "both@background": overlap.intersection[:, 0],
        "either@background": overlap.union[:, 0],
        "both@foreground": overlap.intersection[:, 1],
        "either@foreground": overlap.union[:, 1],
    }
    return {name: _named(maps.case, value) for name, value in values.items()}


def perturb(maps: Maps) -> MetricValues:
    """Positive and negative perturbation of the leading class, as Chefer et al. code it.

    Without hits where the model's outputs are no probabilities; its logit is then followed.
    """
    values: dict[str, float] = {}
    for direction in ("positive", "negative"):
        result = perturbation.perturb(
            **_leading_inputs(maps), labels=_label(maps), direction=direction
        )
        values[f"{direction}_probability"] = float(result.probability[:, 1:].mean())
        if result.hits is None:
            continue
        values[f"{direction}_auc"] = float(result.auc())
        for fraction, hit in zip(result.fractions, result.hits[0], strict=True):
            values[f"{direction}@{fraction:.1f}"] = float(hit)
    return _of_leading(maps, values)


def insert_delete(maps: Maps) -> MetricValues:
    """Insertion, deletion, AOPC, log-odds and ABPC of the leading class."""
    inputs = _leading_inputs(maps)
    most, least = (
        perturbation.perturb(
            **inputs, labels=None, direction=direction, fill="grey", fractions=_TENTHS
        ).probability
        for direction in ("positive", "negative")
    )
    curves = {
        "insertion": insertion_deletion.insertion(**inputs, steps=_CURVE_STEPS),
        "deletion": insertion_deletion.deletion(**inputs, steps=_CURVE_STEPS),
    }
    values = {name: insertion_deletion.area(curve) for name, curve in curves.items()}
    values["aopc"] = perturbation.aopc(most)
    if maps.case.trace.model.activation != "none":
        values["log_odds"] = perturbation.log_odds(most)
    values["abpc"] = perturbation.abpc(least, most)
    return _of_leading(maps, {name: float(value) for name, value in values.items()})


def contrast(maps: Maps) -> MetricValues:
    """`contrast_response` of each object: its own object painted out against another one."""
    case = maps.case
    if case.masks is None or len(set(case.classes)) < 2:
        return {}
    changed = []
    for mask in case.masks:
        painted = class_sensitivity.painted_out(case.pixels, mask[None].to(case.pixels.device))
        trace = record(case.trace.model, painted)
        changed.append(maps_of(maps.method, trace, case.classes).flatten(1))
    values = {}
    for k, name in enumerate(case.names):
        others = [i for i in range(len(case.names)) if case.classes[i] != case.classes[k]]
        before, own_removed = maps.flat[k], changed[k][k]
        responses = [
            class_sensitivity.contrast_response(
                before[None], own_removed[None], changed[i][k][None]
            )
            for i in others
        ]
        values[name] = float(torch.stack(responses).mean())
    return {"contrast_response": values}


GROUPS: dict[str, Callable[[Maps], MetricValues]] = {
    "localization": localization,
    "coupling": coupling,
    "top1-random": top1_random,
    "segmentation": segment,
    "contrast": contrast,
    "perturbation": perturb,
    "insertion-deletion": insert_delete,
}
"""Groups of metrics by name."""

RERUNS_METHOD = "contrast"
"""The group that runs a method on changed images too, so that slow methods skip it."""

SLOW = (RERUNS_METHOD, "perturbation", "insertion-deletion")
"""Groups that run the model many times for each map."""


def _named(case: Case, values: Tensor) -> dict[str, float]:
    return dict(zip(case.names, values.tolist(), strict=True))


def _leading(case: Case) -> int:
    """Which of the classes the model gives the highest logit."""
    return int(case.trace.logits[0, list(case.classes)].argmax())


def _of_leading(maps: Maps, values: dict[str, float]) -> MetricValues:
    name = maps.case.names[_leading(maps.case)]
    return {metric: {name: value} for metric, value in values.items()}


def _label(maps: Maps) -> Tensor | None:
    """The class that is a hit: the data set's label, or the leading one of the classes that it
    names; None (the model's own top class) where it names no class.
    """
    case = maps.case
    if case.label is None:
        return None
    label = case.label if case.sample.label is not None else case.classes[_leading(case)]
    return torch.tensor([label])


def _leading_inputs(maps: Maps) -> dict[str, Any]:
    """Arguments of perturbation metrics for the map of the leading class."""
    case, leading = maps.case, _leading(maps.case)
    model = case.trace.model
    return {
        "predict": model,
        "images": case.pixels,
        "maps": maps.pixels[leading][None].to(case.pixels.device),
        "classes": torch.tensor([case.classes[leading]]),
        "mean": model.preprocess.mean,
        "std": model.preprocess.std,
    }
