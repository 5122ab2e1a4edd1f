"""Which images are measured, on which target classes, and the masks on the model's input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradtoken.batching import read_batch
from gradtoken.bench.class_map import ClassMap
from gradtoken.bench.exclusions import Exclusions
from gradtoken.bench.sample_checks import checked_samples
from gradtoken.bench.selection import ByMap, ByName, Selection, Selector, in_top
from gradtoken.bench.sweeps import Sweeps
from gradtoken.bench.visible_objects import mask_on_input, visible_objects
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
        tuned: fine-tuned models by the group of metrics that asks them.
    """

    sample: Sample
    trace: Trace
    classes: tuple[int, ...]
    names: tuple[str, ...]
    masks: Bool[Tensor, "targets height width"] | None
    ignore: Bool[Tensor, "height width"] | None
    label: int | None
    skipped: tuple[tuple[str, str], ...] = ()
    tuned: Mapping[str, Model] = field(default_factory=dict)

    @property
    def pixels(self) -> Float[Tensor, "1 channels height width"]:
        """The model's input."""
        return self.trace.images

    @cached_property
    def sweeps(self) -> Sweeps:
        """Forward passes of the image's variants with replaced pixels."""
        return Sweeps(self.trace.model)

    @property
    def leading(self) -> int:
        """The position of the class that the model gives the highest logit."""
        return int(self.trace.logits[0, list(self.classes)].argmax())

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
    class_map: ClassMap | None = None,
    exclusions: Exclusions | None = None,
) -> Iterator[tuple[str, Case | None]]:
    """The images to measure: (id, case), or (id, None) for those that `skip` names.

    The targets of an image are the classes of its objects that the model has (`Matcher`) and of
    which the model's input shows pixels (`visible_objects`); the predicted class of an image with a
    mask but no class; the label of an image that has nothing but a label. With a class map they are
    the likeliest class of each category that the map names, where the map asks about it.

    Args:
        model: a classifier.
        samples: a data set; names of one with a `vocabulary` of its own can mean something else
            than the model's.
        whole: leave out images of which the model does not recognise all K classes, that is, where
            they are not its top K or, with sigmoid probabilities, not all above ½.
        skip: which samples are measured already; the model is not run on them.
        class_map: groups of the model's classes by category of the data set, in place of equal
            names.
        exclusions: collects what is left out, and why.

    Raises:
        ModelError: if the model has no classes, or none that the images show, or others than those
            of the labels; if its outputs are no probabilities, which a class map needs.
        DatasetError: if a sample's parts do not fit together, or two samples have one id.
    """
    if model.prompts is not None:
        raise ModelError(
            f"{model.spec} compares images with text and has no classes to measure; use a "
            "classifier, such as gradtoken.models.zero_shot makes of it."
        )
    excluded = Exclusions() if exclusions is None else exclusions
    selector = _selector(model, getattr(samples, "vocabulary", ()), whole, class_map, excluded)
    matched = 0
    for number, sample in enumerate(checked_samples(samples), start=1):
        selection = selector.select(sample)
        if selection is None:
            excluded.count_image(selector.nothing)
            if number >= _ENOUGH and not matched:
                raise selector.no_match(number)
            continue
        matched += 1
        if skip(sample):
            yield sample.id, None
            continue
        case = _case(model, sample, selection, selector)
        if isinstance(case, str):
            excluded.count_image(case)
        else:
            yield sample.id, case


def _selector(
    model: Model,
    vocabulary: Sequence[str],
    whole: bool,
    class_map: ClassMap | None,
    excluded: Exclusions,
) -> Selector:
    if class_map is None:
        return ByName(model, vocabulary, whole, excluded)
    return ByMap(model, vocabulary, class_map, excluded)


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


def _case(model: Model, sample: Sample, selection: Selection, selector: Selector) -> Case | str:
    """A sample as a case, or why it is left out."""
    pixels = model.preprocess(sample.image)
    box = model.preprocess.box(sample.image.size)
    size = (pixels.shape[2], pixels.shape[1])
    visible = visible_objects(sample, selection.positions, box, size)
    if sample.masks is not None and not visible.positions:
        return f"its objects are left out ({visible.skipped[0][1]})"
    trace = record(model, pixels[None])
    chosen = selector.choose(trace.logits[0], sample, selection, visible)
    if isinstance(chosen, str):
        return chosen
    return Case(
        sample=sample,
        trace=trace,
        classes=chosen.classes,
        names=_numbered([model.labels[c].split(",")[0] for c in chosen.classes]),
        masks=chosen.masks,
        ignore=visible.ignore,
        label=chosen.label,
        skipped=chosen.skipped,
    )


def _numbered(names: list[str]) -> tuple[str, ...]:
    """Names of which those that occur several times end in a number."""
    return tuple(
        f"{name} {names[:i].count(name) + 1}" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    )
