"""Which images count, and what is asked about each: targets and masks as the model sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from gradtoken.bench.left_out import LeftOut
from gradtoken.bench.matching import Matcher
from gradtoken.bench.seen import Seen, seen
from gradtoken.datasets.sample import Sample
from gradtoken.errors import DatasetError, ModelError
from gradtoken.images.load_image import ORIENTATION
from gradtoken.models.model import Model
from gradtoken.targets import ClassTarget, Targets, resolve
from gradtoken.trace.record import record
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, eq=False)
class Case:
    """One image and its K targets, in the pixels of the model's input.

    Args:
        sample: the image as its data set gives it.
        trace: the model's forward on it.
        classes: the class ids asked about.
        names: what to call them; a class with several objects has a number behind its name.
        masks: the visible pixels of each that count, or None where the data set has no masks.
        ignore: pixels that count for nothing, or None.
        label: the image's class by its data set, where it has one.
        skipped: objects of the data set that are not asked about, each with the reason.
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
    left_out: LeftOut | None = None,
) -> Iterator[tuple[str, Case | None]]:
    """The images a model can be asked about: (id, case), or (id, None) for those skipped.

    An image whose data set names its objects is asked about those classes that the model has
    (`Matcher`) and of which the model sees pixels that count (`seen`). One with a mask but no class
    is asked about the predicted class, and one with nothing but a label about that label.

    Args:
        model: to be asked.
        samples: a data set; with a `vocabulary` of its own, its names are matched with care.
        whole: leave out images in which the model does not recognise all k of the classes, that
            is, where they are not its k first ones or, of sigmoid probabilities, not all above ½.
        skip: which samples are done already; the model is not run on them.
        left_out: told what is not measured, and why.

    Raises:
        ModelError: if the model has no classes, or none that the images show, or others than those
            that the labels are of.
        DatasetError: if a sample's parts do not fit together, or two have one id.
    """
    if model.prompts is not None:
        raise ModelError(
            f"{model.spec} compares pictures with text and has no classes to measure; use a "
            "classifier."
        )
    told = LeftOut() if left_out is None else left_out
    matcher = Matcher(model.labels, getattr(samples, "vocabulary", ()))
    told.names = matcher.unclear
    known = 0
    for looked, sample in enumerate(_checked(samples), start=1):
        wanted = _wanted(model, sample, matcher)
        if wanted is None:
            told.image("it shows no class that the model has")
            if looked >= _ENOUGH and not known:
                raise ModelError(
                    f"none of the first {looked} pictures shows a class that {model.spec} has; "
                    "measure a model with the data set's classes."
                )
            continue
        known += 1
        if skip(sample):
            yield sample.id, None
            continue
        pixels = model.preprocess(sample.image)
        box = model.preprocess.box(sample.image.size)
        visible = seen(sample, wanted.positions, box, (pixels.shape[2], pixels.shape[1]))
        if sample.masks is not None and not visible.positions:
            told.image(f"its objects are left out ({visible.skipped[0][1]})")
            continue
        case = _case(record(model, pixels[None]), sample, wanted, visible)
        if whole and wanted.classes and not _recognised(case):
            told.image("the model does not recognise all of its classes")
            continue
        yield sample.id, case


def _recognised(case: Case) -> bool:
    logits, classes = case.trace.logits[0], set(case.classes)
    if case.trace.model.activation == "sigmoid":
        return bool((logits[list(classes)] > 0).all())
    return set(logits.topk(len(classes)).indices.tolist()) == classes


_ENOUGH = 200


@dataclass(frozen=True)
class _Wanted:
    """Class ids, and the positions of the objects they are of; no ids where the predicted class is
    to be asked about."""

    classes: tuple[int, ...]
    positions: tuple[int, ...]


def _wanted(model: Model, sample: Sample, matcher: Matcher) -> _Wanted | None:
    """What to ask of a sample; None where the model has none of its classes."""
    if sample.label is not None and sample.masks is None:
        if sample.classes not in (None, len(model.labels)):
            raise ModelError(
                f"{model.spec} has {len(model.labels)} classes, and the labels of the data set are "
                f"of {sample.classes}, so that a number means something else in each; measure a "
                "model of the data set's classes."
            )
        if not 0 <= sample.label < len(model.labels):
            return None
        return _Wanted((sample.label,), ())
    if sample.unnamed:
        return _Wanted((), () if sample.masks is None else (0,))
    found = [(matcher.find(name), i) for i, name in enumerate(sample.names)]
    kept = [(label, i) for label, i in found if label is not None]
    if not kept:
        return None
    return _Wanted(tuple(label for label, _ in kept), tuple(i for _, i in kept))


def _case(trace: Trace, sample: Sample, wanted: _Wanted, visible: Seen) -> Case:
    asked = wanted.classes
    if sample.masks is not None and asked:
        kept = dict(zip(wanted.positions, wanted.classes, strict=True))
        asked = tuple(kept[i] for i in visible.positions)
    asked = asked or (int(trace.logits[0].argmax()),)
    names = [trace.model.labels[c].split(",")[0] for c in asked]
    return Case(
        sample=sample,
        trace=trace,
        classes=asked,
        names=tuple(
            f"{name} {names[:i].count(name) + 1}" if names.count(name) > 1 else name
            for i, name in enumerate(names)
        ),
        masks=visible.masks,
        ignore=visible.ignore,
        label=sample.label if sample.label is not None else (asked[0] if wanted.classes else None),
        skipped=visible.skipped,
    )


def _checked(samples: Iterable[Sample]) -> Iterator[Sample]:
    """The samples, each with an id of its own and parts that fit together.

    Raises:
        DatasetError: saying what does not fit.
    """
    ids = set()
    for sample in samples:
        if sample.id in ids:
            raise DatasetError(
                f"two pictures have the id {sample.id!r}, so their records would be mixed; give "
                "each its own."
            )
        ids.add(sample.id)
        _check(sample)
        yield sample


def _check(sample: Sample) -> None:
    """Refuse a sample whose image is not as `explain` would read it, or whose masks are not its."""
    image = sample.image
    if image.mode != "RGB" or image.getexif().get(ORIENTATION, 1) != 1:
        raise DatasetError(
            f"the picture of {sample.id!r} is {image.mode} or not upright; read it with "
            "gradtoken.images.load_image.load_image, and turn its masks with it."
        )
    size = image.size[::-1]
    for what, mask in (("masks", sample.masks), ("pixels to ignore", sample.ignore)):
        if mask is not None and mask.shape[-2:] != size:
            raise DatasetError(
                f"the {what} of {sample.id!r} are of {mask.shape[-2:]} pixels, its picture of "
                f"{size}; give masks of the picture's size."
            )
    if sample.masks is not None and len(sample.masks) != (
        1 if sample.unnamed else len(sample.names)
    ):
        raise DatasetError(
            f"{sample.id!r} has {len(sample.masks)} masks and {len(sample.names)} names; give a "
            "name for each mask."
        )
