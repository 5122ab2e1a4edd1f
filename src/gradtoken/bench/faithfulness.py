"""Groups of metrics that compare relevance with what the model does without parts of the image."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from jaxtyping import Float
from torch import Tensor

from gradtoken.bench.cases import Case
from gradtoken.bench.leading import leading_inputs, named, of_leading
from gradtoken.bench.maps import Maps, maps_of
from gradtoken.bench.swept import MetricValues
from gradtoken.errors import MethodError
from gradtoken.metrics import relevance_accuracy
from gradtoken.metrics.f_fidelity import f_fidelity
from gradtoken.metrics.max_sensitivity import max_sensitivity
from gradtoken.metrics.road import road
from gradtoken.metrics.saco import saco
from gradtoken.metrics.sanity import rank_correlation
from gradtoken.metrics.single_deletion import logit_drops, relevance_by_cell
from gradtoken.models.model import Model
from gradtoken.trace.record import record
from gradtoken.trace.trace import Trace

_DELETIONS = 10
"""Random deletions for each size of an explanation, in F-Fidelity."""


def relevance(maps: Maps) -> MetricValues:
    """Relevance mass accuracy and rank accuracy of each object; none without masks."""
    masks, ignore = maps.case.masks, maps.case.ignore
    if masks is None:
        return {}
    ignored = None if ignore is None else ignore[None].expand_as(masks)
    values = {
        "mass_accuracy": relevance_accuracy.mass_accuracy(maps.pixels, masks, ignored),
        "rank_accuracy": relevance_accuracy.rank_accuracy(maps.pixels, masks, ignored),
    }
    return {name: named(maps.case, value) for name, value in values.items()}


def salience_groups(maps: Maps) -> MetricValues:
    """SaCo of the leading class."""
    return of_leading(maps, {"saco": float(saco(**leading_inputs(maps)))})


def deletion_by_cell(maps: Maps) -> MetricValues:
    """Single deletion of each class, on the model that is explained."""
    drops = _drops(maps.case, maps.case.trace.model)
    return {"single_deletion": named(maps.case, _agreement(maps.case, maps.pixels, drops))}


def in_domain_deletion(maps: Maps) -> MetricValues:
    """IDSDS of each class: maps and drops are those of the in-domain model.

    None for slow methods, as it runs the method again.

    Raises:
        MethodError: no in-domain model.
    """
    if maps.method.slow:
        return {}
    tuned = _tuned(maps.case, "idsds")
    trace = _trace(maps.case, tuned)
    tokens = maps_of(maps.method, trace, maps.case.classes)
    values = _agreement(maps.case, trace.patch_grid.enlarge(tokens), _drops(maps.case, tuned))
    return {"idsds": named(maps.case, values)}


def remove_and_debias(maps: Maps) -> MetricValues:
    """ROAD of the leading class in both orders: mean probability, and the points of the curves."""
    inputs = leading_inputs(maps)
    inputs.pop("mean")
    values = {}
    for order in ("morf", "lerf"):
        result = road(**inputs, order=order)
        values[f"road_{order}"] = float(result.probability[:, 1:].mean())
        if maps.case.trace.model.activation == "softmax":
            for fraction, top in zip(result.fractions, result.top[0], strict=True):
                values[f"road_{order}@{fraction:.1f}"] = float(top)
    return of_leading(maps, values)


def fidelity(maps: Maps) -> MetricValues:
    """F-Fidelity of the leading class, by its probability, as a mean over sizes.

    Raises:
        MethodError: no model that was fine-tuned with random pixels deleted.
    """
    inputs = leading_inputs(maps)
    del inputs["mean"], inputs["std"]
    inputs["predict"] = _tuned(maps.case, "f-fidelity")
    result = f_fidelity(**inputs, samples=_DELETIONS)
    means = {"plus": float(result.plus.mean()), "minus": float(result.minus.mean())}
    return of_leading(maps, {f"f_fidelity_{side}": value for side, value in means.items()})


def sensitivity(maps: Maps) -> MetricValues:
    """Max-sensitivity of each class's map; none for slow methods, as it runs the method again."""
    if maps.method.slow:
        return {}
    case = maps.case
    model = case.trace.model

    def explain(images: Float[Tensor, "one channels height width"]) -> Float[Tensor, "k tokens"]:
        return maps_of(maps.method, record(model, images[:1]), case.classes).flatten(1)

    repeated = case.pixels.expand(len(case.classes), -1, -1, -1)
    return {"max_sensitivity": named(case, max_sensitivity(explain, repeated))}


def _agreement(
    case: Case,
    pixels: Float[Tensor, "targets height width"],
    drops: Float[Tensor, "cells classes"],
) -> Float[Tensor, " targets"]:
    """Spearman's correlation over the cells between each target's relevance and its drops."""
    return rank_correlation(relevance_by_cell(pixels), drops[:, list(case.classes)].T)


def _tuned(case: Case, group: str) -> Model:
    """The fine-tuned model that a group of metrics asks.

    Raises:
        MethodError: none was given.
    """
    if group not in case.tuned:
        raise MethodError(f"{group} needs a fine-tuned model, and none was given.")
    return case.tuned[group]


@lru_cache(maxsize=2)
def _drops(case: Case, model: Model) -> Float[Tensor, "cells classes"]:
    """The drops of every logit, the same for all methods."""
    how: dict[str, Any] = {"mean": model.preprocess.mean, "std": model.preprocess.std}
    return logit_drops(model, case.pixels, **how)[0]


@lru_cache(maxsize=1)
def _trace(case: Case, model: Model) -> Trace:
    """The forward pass of a fine-tuned model, the same for all methods."""
    return record(model, case.pixels)
