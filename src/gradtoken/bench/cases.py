"""Which pictures count, and what is asked about each: targets and masks as the model sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from gradtoken.datasets.sample import Sample
from gradtoken.errors import ModelError, TargetError
from gradtoken.geometry import Box
from gradtoken.models.model import Model
from gradtoken.targets import ClassTarget, Targets, resolve
from gradtoken.trace import Trace, record


@dataclass(frozen=True, eq=False)
class Case:
    """One picture and its K targets, in the pixels of the model's input.

    Args:
        sample: the picture as its data set gives it.
        trace: the model's forward on it.
        classes: the class ids asked about.
        names: what to call them; a class with several objects has a number behind its name.
        masks: the visible pixels of each, or None where the data set has no masks.
        ignore: pixels that count for nothing, or None.
        label: the picture's class by its data set, where it has one.
    """

    sample: Sample
    trace: Trace
    classes: tuple[int, ...]
    names: tuple[str, ...]
    masks: Bool[Tensor, "targets height width"] | None
    ignore: Bool[Tensor, "height width"] | None
    label: int | None

    @property
    def pixels(self) -> Float[Tensor, "1 channels height width"]:
        """The model's input."""
        return self.trace.images

    @property
    def targets(self) -> Targets:
        """The logits of the classes."""
        return resolve(
            [[ClassTarget(c) for c in self.classes]], self.trace.logits, self.trace.model.labels
        )


def cases(
    model: Model,
    samples: Iterable[Sample],
    *,
    whole: bool = True,
    skip: Callable[[str], bool] = lambda _: False,
) -> Iterator[tuple[str, Case | None]]:
    """The pictures a model can be asked about: (id, case), or (id, None) for those skipped.

    A picture whose data set names its objects is asked about those classes that the model has.
    One with a mask but no class is asked about the predicted class, and one with nothing but a
    label about that label.

    Args:
        whole: leave out pictures in which the model does not recognise all k of the classes, that
            is, where they are not its k first ones or, of sigmoid probabilities, not all above ½.
        skip: which ids are done already; the model is not run on them.

    Raises:
        ModelError: if the model has no classes, or none that the pictures show.
    """
    if model.prompts is not None:
        raise ModelError(
            f"{model.spec} compares pictures with text and has no classes to measure; use a "
            "classifier."
        )
    looked, known = 0, 0
    for sample in samples:
        looked += 1
        if skip(sample.id):
            known += 1
            yield sample.id, None
            continue
        wanted = _wanted(model, sample)
        if wanted is None:
            if looked >= _ENOUGH and not known:
                raise ModelError(
                    f"none of the first {looked} pictures shows a class that {model.spec} has; "
                    "measure a model with the data set's classes."
                )
            continue
        known += 1
        case = _case(model, sample, *wanted)
        if whole and wanted[0] and not _recognised(case):
            continue
        yield sample.id, case


def _recognised(case: Case) -> bool:
    logits, classes = case.trace.logits[0], set(case.classes)
    if case.trace.model.activation == "sigmoid":
        return bool((logits[list(classes)] > 0).all())
    return set(logits.topk(len(classes)).indices.tolist()) == classes


_ENOUGH = 200


def _wanted(model: Model, sample: Sample) -> tuple[list[int], list[int]] | None:
    """Class ids and the positions of their masks; no ids where the predicted class is to be asked
    about; None where the model has none of the classes."""
    if sample.label is not None and sample.masks is None:
        if not 0 <= sample.label < len(model.labels):
            return None
        return [sample.label], []
    if sample.unnamed:
        return [], [0]
    found = [(_find(model, name), i) for i, name in enumerate(sample.names)]
    kept = [(label, i) for label, i in found if label is not None]
    if not kept:
        return None
    return [label for label, _ in kept], [i for _, i in kept] if sample.masks is not None else []


def _find(model: Model, name: str) -> int | None:
    try:
        return model.labels.find(name)
    except TargetError:
        return None


def _case(model: Model, sample: Sample, classes: Sequence[int], positions: Sequence[int]) -> Case:
    pixels = model.preprocess(sample.image)[None]
    trace = record(model, pixels)
    asked = tuple(classes) or (int(trace.logits[0].argmax()),)
    names = [model.labels[c].split(",")[0] for c in asked]
    height, width = pixels.shape[-2:]
    box = model.preprocess.box(sample.image.size)
    masks = ignore = None
    if sample.masks is not None:
        chosen = [_as_seen(sample.masks[i], box, (width, height)) for i in positions]
        masks = torch.stack(chosen)
    if sample.ignore is not None:
        ignore = _as_seen(sample.ignore, box, (width, height))
    return Case(
        sample=sample,
        trace=trace,
        classes=asked,
        names=tuple(
            f"{name} {names[:i].count(name) + 1}" if names.count(name) > 1 else name
            for i, name in enumerate(names)
        ),
        masks=masks,
        ignore=ignore,
        label=sample.label if sample.label is not None else (asked[0] if classes else None),
    )


def _as_seen(
    mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], box: Box, size: tuple[int, int]
) -> Bool[Tensor, "height width"]:
    """A mask of the original as the model's input has it: nearest pixels, nothing outside."""
    picture = Image.fromarray(mask.astype(np.uint8))
    seen = picture.transform(size, Image.Transform.EXTENT, tuple(box), Image.Resampling.NEAREST)
    return torch.from_numpy(np.asarray(seen) > 0)
