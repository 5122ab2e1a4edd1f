"""Metrics of one method on one image, in groups that the command line names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

from gradtoken.bench import faithfulness, sanity_scores
from gradtoken.bench.leading import (
    hit_label,
    leading_class,
    leading_map,
    model_activation,
    named,
    normalisation,
    of_leading,
)
from gradtoken.bench.maps import Maps, maps_of
from gradtoken.bench.swept import Logits, MetricValues, Swept
from gradtoken.errors import TargetError
from gradtoken.images.fills import filled
from gradtoken.metrics import class_sensitivity, insertion_deletion, perturbation, segmentation
from gradtoken.metrics.localization import Coverage, token_ap
from gradtoken.metrics.pixel_replacement import Replacement, probabilities
from gradtoken.trace.record import record

_CURVE_STEPS = 14
"""Steps of the insertion and deletion curves."""
_DIRECTIONS: tuple[Literal["positive", "negative"], ...] = ("positive", "negative")
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
    return {name: named(maps.case, values[name]) for name in names}


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
    leading = maps.case.leading
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
    return {name: named(maps.case, value) for name, value in values.items()}


def _perturb_plan(maps: Maps) -> dict[str, Replacement]:
    """Most and least relevant pixels black, at 0.1 to 0.9 of them."""
    how = perturbation.PerturbationProtocol(**normalisation(maps.case))
    return {d: perturbation.replacement(*leading_map(maps), d, how) for d in _DIRECTIONS}


def _perturb_values(maps: Maps, logits: Logits) -> MetricValues:
    """Positive and negative perturbation of the leading class, as Chefer et al. code it.

    Without hits where the model's outputs are no probabilities; its logit is then followed.
    """
    values: dict[str, float] = {}
    label, classes = hit_label(maps), leading_class(maps.case)
    for direction in _DIRECTIONS:
        result = perturbation.perturbed(
            logits[direction], perturbation.FRACTIONS, classes, label, model_activation(maps)
        )
        values[f"{direction}_probability"] = float(result.probability[:, 1:].mean())
        if result.hits is None:
            continue
        values[f"{direction}_auc"] = float(result.auc())
        for fraction, hit in zip(result.fractions, result.hits[0], strict=True):
            values[f"{direction}@{fraction:.1f}"] = float(hit)
    return of_leading(maps, values)


def _insert_delete_plan(maps: Maps) -> dict[str, Replacement]:
    """Tenths of the pixels grey, and the steps of both curves."""
    image, relevance = leading_map(maps)
    normalised = normalisation(maps.case)
    tenths = perturbation.PerturbationProtocol(**normalised, fill="grey", fractions=_TENTHS)
    blurred, grey = (filled(image, fill, **normalised) for fill in ("blur", "grey"))
    between = insertion_deletion.steps_between
    return {
        **{d: perturbation.replacement(image, relevance, d, tenths) for d in _DIRECTIONS},
        "insertion": between(blurred, image, relevance, _CURVE_STEPS),
        "deletion": between(image, grey, relevance, _CURVE_STEPS),
    }


def _insert_delete_values(maps: Maps, logits: Logits) -> MetricValues:
    """Insertion, deletion, AOPC, log-odds and ABPC of the leading class."""
    classes, activation = leading_class(maps.case), model_activation(maps)
    curves = {name: probabilities(values, classes, activation) for name, values in logits.items()}
    values = {name: insertion_deletion.area(curves[name]) for name in ("insertion", "deletion")}
    most, least = (curves[direction] for direction in _DIRECTIONS)
    values["aopc"] = perturbation.aopc(most)
    if activation != "none":
        values["log_odds"] = perturbation.log_odds(most)
    values["abpc"] = perturbation.abpc(least, most)
    return of_leading(maps, {name: float(value) for name, value in values.items()})


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
    "perturbation": Swept(_perturb_plan, _perturb_values),
    "insertion-deletion": Swept(_insert_delete_plan, _insert_delete_values),
    "sanity": sanity_scores.randomised,
    "input-shift": sanity_scores.input_shift,
    "relevance": faithfulness.relevance,
    "saco": faithfulness.salience_groups,
    "single-deletion": faithfulness.deletion_by_cell,
    "idsds": faithfulness.in_domain_deletion,
    "road": faithfulness.remove_and_debias,
    "f-fidelity": faithfulness.fidelity,
    "max-sensitivity": faithfulness.sensitivity,
}
"""Groups of metrics by name."""

RERUNS_METHOD = ("contrast", "sanity", "input-shift")
"""Groups that run a method on changed images or models too, so that slow methods skip them."""

SLOW = (*RERUNS_METHOD, "road", "f-fidelity", "max-sensitivity")
"""Groups that take many times as long as a fast method's map."""
