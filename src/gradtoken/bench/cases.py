"""Which images are measured, on which target classes, and the masks on the model's input."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradtoken.batching import read_batch
from gradtoken.bench.exclusions import Exclusions
from gradtoken.bench.matching import Matcher
from gradtoken.bench.sample_checks import checked_samples
from gradtoken.bench.sweeps import Sweeps
from gradtoken.bench.visible_objects import VisibleObjects, mask_on_input, visible_objects
from gradtoken.datasets.sample import Sample
from gradtoken.datasets.scenes.samples import scene_sample
from gradtoken.datasets.scenes.scenes import Scene, Scenes
from gradtoken.errors import ModelError
from gradtoken.models.model import Model
from gradtoken.targets import ClassTarget, Targets, resolve
from gradtoken.trace.record import record
from gradtoken.trace.trace import Trace

_ENOUGH = 200
"""Images after which a model that has none of their classes is an error."""


@dataclass(frozen=True, eq=False)
class Case:
    """One image and its K target classes, on the pixels of the model's input.

    Args:
        sample: the image as its data set gives it.
        trace: the model's forward pass on it.
        classes: ids of the target classes.
        names: their names; of a class with several objects, each name ends in a number.
        masks: the visible pixels of each object without the ignored ones; None where the data set
            has no masks.
        ignore: pixels to ignore, or None.
        label: the image's class by its data set, where it has one.
        skipped: objects of the data set that are not measured, each with the reason.
    """

    sample: Sample
    trace: Trace
    classes: tuple[int, ...]
    names: tuple[str, ...]
    masks: Bool[Tensor, "targets height width"] | None
    ignore: Bool[Tensor, "height width"] | None
    label: int | None
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def pixels(self) -> Float[Tensor, "1 channels height width"]:
        """The model's input."""
        return self.trace.images

    @cached_property
    def sweeps(self) -> Sweeps:
        """Forward passes of the image's variants with replaced pixels."""
        return Sweeps(self.trace.model)

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
    skip: Callable[[Sample], bool] = lambda _: False,
    exclusions: Exclusions | None = None,
) -> Iterator[tuple[str, Case | None]]:
    """The images to measure: (id, case), or (id, None) for those that `skip` names.

    The targets of an image are the classes of its objects that the model has (`Matcher`) and of
    which the model's input shows pixels (`visible_objects`); the predicted class of an image with a
    mask but no class; the label of an image that has nothing but a label.

    Args:
        model: a classifier.
        samples: a data set; names of one with a `vocabulary` of its own can mean something else
            than the model's.
        whole: leave out images of which the model does not recognise all K classes, that is, where
            they are not its top K or, with sigmoid probabilities, not all above ½.
        skip: which samples are measured already; the model is not run on them.
        exclusions: collects what is left out, and why.

    Raises:
        ModelError: if the model has no classes, or none that the images show, or others than those
            of the labels.
        DatasetError: if a sample's parts do not fit together, or two samples have one id.
    """
    if model.prompts is not None:
        raise ModelError(
            f"{model.spec} compares pictures with text and has no classes to measure; use a "
            "classifier."
        )
    excluded = Exclusions() if exclusions is None else exclusions
    matcher = Matcher(model.labels, getattr(samples, "vocabulary", ()))
    excluded.names = matcher.unclear
    matched = 0
    for number, sample in enumerate(checked_samples(samples), start=1):
        selection = _select(model, sample, matcher)
        if selection is None:
            excluded.count_image("it shows no class that the model has")
            if number >= _ENOUGH and not matched:
                raise ModelError(
                    f"none of the first {number} images shows a class that {model.spec} has; "
                    "measure a model with the data set's classes."
                )
            continue
        matched += 1
        if skip(sample):
            yield sample.id, None
            continue
        case = _case(model, sample, selection, whole)
        if isinstance(case, str):
            excluded.count_image(case)
        else:
            yield sample.id, case


def in_top(logits: Float[Tensor, " classes"], classes: Collection[int]) -> bool:
    """Whether k classes are the k with the highest logits."""
    return set(logits.topk(len(classes)).indices.tolist()) == set(classes)


def recognised(
    model: Model, scenes: Scenes, limit: int, *, batch: int = 8
) -> Iterator[tuple[int, Scene]]:
    """The bundled scenes among the first `limit` whose k objects are the model's top k classes.

    Args:
        model: with the scenes' classes.
        scenes: the scenes.
        limit: how many scenes are looked at.
        batch: how many of them go through the model at once.

    Yields:
        The index of a scene, and the scene.
    """
    for start in range(0, limit, batch):
        drawn = [(index, scenes[index]) for index in range(start, min(start + batch, limit))]
        logits = model(read_batch(model, [scene.image for _, scene in drawn])[1])
        for (index, scene), row in zip(drawn, logits, strict=True):
            if in_top(row, scene.labels):
                yield index, scene


def scene_case(model: Model, index: int, scene: Scene) -> Case:
    """A bundled scene as a case: each object is a target; of one outside the crop no pixel is True.

    Args:
        model: with the scenes' classes.
        index: the position of the scene.
        scene: the scene.
    """
    pixels = model.preprocess(scene.image)
    box = model.preprocess.box(scene.image.size)
    size = (pixels.shape[2], pixels.shape[1])
    return Case(
        sample=scene_sample(index, scene),
        trace=record(model, pixels[None]),
        classes=scene.labels,
        names=scene.names,
        masks=torch.stack([mask_on_input(mask, box, size) for mask in scene.masks]),
        ignore=None,
        label=None,
    )


@dataclass(frozen=True)
class _Selection:
    """Class ids, and the positions of their objects; no ids for the predicted class."""

    classes: tuple[int, ...]
    positions: tuple[int, ...]


def _select(model: Model, sample: Sample, matcher: Matcher) -> _Selection | None:
    """The targets of a sample; None where the model has none of its classes."""
    if sample.label is not None and sample.masks is None:
        if sample.classes not in (None, len(model.labels)):
            raise ModelError(
                f"{model.spec} has {len(model.labels)} classes, and the labels of the data set are "
                f"of {sample.classes}, so that a number means something else in each; measure a "
                "model of the data set's classes."
            )
        if not 0 <= sample.label < len(model.labels):
            return None
        return _Selection((sample.label,), ())
    if sample.unnamed:
        return _Selection((), () if sample.masks is None else (0,))
    matches = [(matcher.find(name), i) for i, name in enumerate(sample.names)]
    known = [(label, i) for label, i in matches if label is not None]
    if not known:
        return None
    return _Selection(tuple(label for label, _ in known), tuple(i for _, i in known))


def _case(model: Model, sample: Sample, selection: _Selection, whole: bool) -> Case | str:
    """A sample as a case, or why it is left out."""
    pixels = model.preprocess(sample.image)
    box = model.preprocess.box(sample.image.size)
    size = (pixels.shape[2], pixels.shape[1])
    visible = visible_objects(sample, selection.positions, box, size)
    if sample.masks is not None and not visible.positions:
        return f"its objects are left out ({visible.skipped[0][1]})"
    trace = record(model, pixels[None])
    case = _with_targets(trace, sample, selection, visible)
    if whole and selection.classes and not _recognised(case):
        return "the model does not recognise all of its classes"
    return case


def _with_targets(
    trace: Trace, sample: Sample, selection: _Selection, visible: VisibleObjects
) -> Case:
    classes = selection.classes
    if sample.masks is not None and classes:
        by_position = dict(zip(selection.positions, selection.classes, strict=True))
        classes = tuple(by_position[i] for i in visible.positions)
    classes = classes or (int(trace.logits[0].argmax()),)
    names = [trace.model.labels[c].split(",")[0] for c in classes]
    label = sample.label
    if label is None and selection.classes:
        label = classes[0]
    return Case(
        sample=sample,
        trace=trace,
        classes=classes,
        names=tuple(
            f"{name} {names[:i].count(name) + 1}" if names.count(name) > 1 else name
            for i, name in enumerate(names)
        ),
        masks=visible.masks,
        ignore=visible.ignore,
        label=label,
        skipped=visible.skipped,
    )


def _recognised(case: Case) -> bool:
    logits = case.trace.logits[0]
    if case.trace.model.activation == "sigmoid":
        return bool((logits[list(set(case.classes))] > 0).all())
    return in_top(logits, set(case.classes))
