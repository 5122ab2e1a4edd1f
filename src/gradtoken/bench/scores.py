"""The figures of one method on one picture, by groups that the command line names."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution import Method
from gradtoken.attribution.base import relevance_of
from gradtoken.bench.cases import Case
from gradtoken.errors import MethodError, TargetError
from gradtoken.metrics import class_sensitivity, insertion_deletion, perturbation, segmentation
from gradtoken.metrics.localization import Coverage, token_ap
from gradtoken.targets import ClassTarget, resolve
from gradtoken.trace.record import record
from gradtoken.trace.trace import Trace

Figures: TypeAlias = dict[str, dict[str, float]]
"""Values by metric, then by object."""

_STEPS = 14
"""Points of the insertion and deletion curves."""
_TENTHS = tuple(step / 10 for step in range(1, 11))


@dataclass(frozen=True, eq=False)
class Maps:
    """A method's maps of one picture.

    Args:
        case: the picture and its K classes.
        method: to be asked about changed pictures.
        tokens: (K, rows, columns), as `explain` gives them for the K classes.
        other: the map of a class that is not asked about, and is the same for each method; None
            where every class of the model is.
    """

    case: Case
    method: Method
    tokens: Float[Tensor, "targets rows columns"]
    other: Float[Tensor, "rows columns"] | None

    @classmethod
    def made(cls, case: Case, method: Method) -> Maps:
        """Run a method on a picture's classes and on one more.

        Raises:
            MethodError: if it cannot serve the model, or gives NaN or infinite relevance.
        """
        absent = _absent(case)
        if absent is None:
            return cls(case, method, maps_of(method, case.trace, case.classes), None)
        found = maps_of(method, case.trace, [*case.classes, absent])
        tokens = found[:-1]
        if method.sets_against_others():
            tokens = maps_of(method, case.trace, case.classes)
        return cls(case, method, tokens, found[-1])

    @property
    def flat(self) -> Float[Tensor, "targets tokens"]:
        return self.tokens.flatten(1)

    @property
    def pixels(self) -> Float[Tensor, "targets height width"]:
        """On the pixels of the model's input."""
        return self.case.trace.patch_grid.enlarge(self.tokens)


def maps_of(
    method: Method, trace: Trace, classes: Sequence[int]
) -> Float[Tensor, "targets rows columns"]:
    """A method's maps of a recorded picture, on the CPU.

    Raises:
        MethodError: if it cannot serve the model, or gives NaN or infinite relevance.
    """
    targets = resolve(
        [[ClassTarget(c) for c in classes]],
        trace.logits,
        trace.model.labels,
        activation=trace.model.activation,
    )
    found = relevance_of(method, trace, targets)[0].detach().float().cpu()
    if not bool(torch.isfinite(found).all()):
        raise MethodError(f"{method.name} gave NaN or infinite relevance for {trace.model.spec}.")
    return found.unflatten(-1, trace.grid)


def localization(maps: Maps) -> Figures:
    """Pointing, token AP, share and energy of each object."""
    masks = maps.case.masks
    if masks is None:
        return {}
    coverage = Coverage.of_masks(masks, maps.case.trace.patch_grid, maps.case.ignore)
    figures = coverage.figures(maps.tokens)
    figures["token_ap"] = token_ap(maps.flat.double(), coverage.tokens, coverage.counted)
    if len(set(maps.case.classes)) < 2:
        del figures["share"]
    names = ("pointing", "token_ap", "share", "energy")
    return {name: _each(maps.case, figures[name]) for name in names if name in figures}


def coupling(maps: Maps) -> Figures:
    """Mean correlation of the maps of every two classes present, repeated for its objects.

    None with fewer than two classes or a constant map.
    """
    try:
        found = class_sensitivity.present_coupling(maps.flat, maps.case.classes)
    except TargetError:
        return {}
    return {"coupling": dict.fromkeys(maps.case.names, found)}


def top1_random(maps: Maps) -> Figures:
    """Correlation of the first class's map with that of a class that is not there.

    None where the model has no other class.
    """
    if maps.other is None:
        return {}
    other = maps.other.flatten()[None]
    found = class_sensitivity.correlation(maps.flat[_leading(maps.case)][None], other)
    return {"top1_random": {maps.case.names[_leading(maps.case)]: float(found)}}


def segment(maps: Maps) -> Figures:
    """AP of every pixel, and the counts that pixel accuracy and mean IoU are made of.

    Of signed maps the positive part counts, as it does in unsigned ones.
    """
    masks, ignore = maps.case.masks, maps.case.ignore
    if masks is None:
        return {}
    away = None if ignore is None else ignore[None].expand_as(masks)
    positive = maps.pixels.clamp_min(0)
    found = segmentation.overlap(positive, masks, away)
    values = {
        "segmentation_ap": segmentation.average_precision(positive, masks, away),
        "correct@segmentation": found.correct,
        "labelled@segmentation": found.labelled,
        "both@background": found.intersection[:, 0],
        "either@background": found.union[:, 0],
        "both@foreground": found.intersection[:, 1],
        "either@foreground": found.union[:, 1],
    }
    return {name: _each(maps.case, value) for name, value in values.items()}


def perturb(maps: Maps) -> Figures:
    """Positive and negative perturbation of the leading class, as Chefer et al. code it.

    Without hits where the model's outputs are no probabilities; its logit is then followed.
    """
    found: dict[str, float] = {}
    for direction in ("positive", "negative"):
        result = perturbation.perturb(**_asked(maps), labels=_label(maps), direction=direction)
        found[f"{direction}_probability"] = float(result.probability[:, 1:].mean())
        if result.hits is None:
            continue
        found[f"{direction}_auc"] = float(result.auc())
        for fraction, hit in zip(result.fractions, result.hits[0], strict=True):
            found[f"{direction}@{fraction:.1f}"] = float(hit)
    return _of_leading(maps, found)


def insert_delete(maps: Maps) -> Figures:
    """Insertion, deletion, AOPC, log-odds and ABPC of the leading class."""
    asked = _asked(maps)
    most, least = (
        perturbation.perturb(
            **asked, labels=None, direction=direction, fill="grey", fractions=_TENTHS
        ).probability
        for direction in ("positive", "negative")
    )
    curves = {
        "insertion": insertion_deletion.insertion(**asked, steps=_STEPS),
        "deletion": insertion_deletion.deletion(**asked, steps=_STEPS),
    }
    figures = {name: insertion_deletion.area(curve) for name, curve in curves.items()}
    figures["aopc"] = perturbation.aopc(most)
    if maps.case.trace.model.activation != "none":
        figures["log_odds"] = perturbation.log_odds(most)
    figures["abpc"] = perturbation.abpc(least, most)
    return _of_leading(maps, {name: float(value) for name, value in figures.items()})


def contrast(maps: Maps) -> Figures:
    """How much of a map's change is due to its own object, when one or another is painted out."""
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
        rows = [maps.flat[k], changed[k][k]]
        found = [
            class_sensitivity.contrast_response(*(r[None] for r in (*rows, changed[i][k])))
            for i in others
        ]
        values[name] = float(torch.stack(found).mean())
    return {"contrast_response": values}


GROUPS: dict[str, Callable[[Maps], Figures]] = {
    "localization": localization,
    "coupling": coupling,
    "top1-random": top1_random,
    "segmentation": segment,
    "contrast": contrast,
    "perturbation": perturb,
    "insertion-deletion": insert_delete,
}
"""Groups of metrics by name."""

CHANGED = "contrast"
"""The group that asks a method about changed pictures too, and leaves slow methods out."""

SLOW = (CHANGED, "perturbation", "insertion-deletion")
"""Groups that run the model many times for each map."""


def _each(case: Case, values: Tensor) -> dict[str, float]:
    return dict(zip(case.names, values.tolist(), strict=True))


def _leading(case: Case) -> int:
    """Which of the classes the model gives the highest logit."""
    return int(case.trace.logits[0, list(case.classes)].argmax())


def _of_leading(maps: Maps, values: dict[str, float]) -> Figures:
    name = maps.case.names[_leading(maps.case)]
    return {metric: {name: value} for metric, value in values.items()}


def _label(maps: Maps) -> Tensor | None:
    """What counts as a hit: the data set's label, or the leading one of the classes that it names;
    None, the model's own first class, where it tells no class."""
    case = maps.case
    if case.label is None:
        return None
    label = case.label if case.sample.label is not None else case.classes[_leading(case)]
    return torch.tensor([label])


def _asked(maps: Maps) -> dict[str, Any]:
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


def _absent(case: Case) -> int | None:
    """A class that is not asked about, drawn by the picture's name; None if there is none."""
    total = case.trace.logits.shape[1]
    left = [c for c in range(total) if c not in case.classes]
    if not left:
        return None
    return left[zlib.crc32(case.sample.id.encode()) % len(left)]
