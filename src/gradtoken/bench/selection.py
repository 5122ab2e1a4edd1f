"""Which classes an image is asked about: by the names of its objects, or by a class map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from gradtoken.bench.class_map import ClassMap, map_objects
from gradtoken.bench.exclusions import Exclusions
from gradtoken.bench.matching import Matcher
from gradtoken.bench.visible_objects import VisibleObjects
from gradtoken.datasets.sample import Sample
from gradtoken.errors import DatasetError, ModelError
from gradtoken.models.model import Model
from gradtoken.targets.activation import probabilities


@dataclass(frozen=True)
class Selection:
    """What is known before the model runs.

    Args:
        classes: ids of the model's classes, one for each position; none for the predicted class
            and where the class depends on the model's output.
        positions: of the objects in the sample.
    """

    classes: tuple[int, ...]
    positions: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Chosen:
    """The target classes of an image.

    Args:
        classes: their ids.
        masks: the pixels of each; None without masks.
        label: the image's class by its data set, where it has one.
        skipped: (name, reason) of objects that are left out.
    """

    classes: tuple[int, ...]
    masks: Bool[Tensor, "objects height width"] | None
    label: int | None
    skipped: tuple[tuple[str, str], ...]


class Selector(ABC):
    """Selects the objects of an image, then the classes that it is asked about."""

    nothing: str
    """Why an image of which nothing is selected is left out."""

    @abstractmethod
    def select(self, sample: Sample) -> Selection | None:
        """The objects to look at; None if there are none."""

    @abstractmethod
    def choose(
        self,
        logits: Float[Tensor, " classes"],
        sample: Sample,
        selection: Selection,
        visible: VisibleObjects,
    ) -> Chosen | str:
        """The target classes, or why the image is left out.

        Args:
            logits: of the image.
            sample: the image.
            selection: its objects.
            visible: those of which the model's input shows pixels.
        """

    @abstractmethod
    def no_match(self, number: int) -> Exception:
        """The error that nothing was selected of the first images.

        Args:
            number: how many they are.
        """


class ByName(Selector):
    """The classes whose names mean the same as those of the objects.

    Args:
        model: a classifier.
        vocabulary: as for `Matcher`.
        whole: whether the model has to recognise all of an image's classes.
        excluded: collects names that are not matched.
    """

    nothing = "it shows no class that the model has"

    def __init__(
        self, model: Model, vocabulary: Sequence[str], whole: bool, excluded: Exclusions
    ) -> None:
        self._model, self._whole = model, whole
        self._matcher = Matcher(model.labels, vocabulary)
        excluded.names = self._matcher.unclear

    def select(self, sample: Sample) -> Selection | None:
        labels = self._model.labels
        if sample.label is not None and sample.masks is None:
            if sample.classes not in (None, len(labels)):
                raise ModelError(
                    f"{self._model.spec} has {len(labels)} classes, and the labels of the data set "
                    f"are of {sample.classes}, so that a number means something else in each; "
                    "measure a model of the data set's classes."
                )
            return Selection((sample.label,), ()) if 0 <= sample.label < len(labels) else None
        if sample.unnamed:
            return Selection((), () if sample.masks is None else (0,))
        matches = [(self._matcher.find(name), i) for i, name in enumerate(sample.names)]
        known = [(label, i) for label, i in matches if label is not None]
        if not known:
            return None
        return Selection(tuple(label for label, _ in known), tuple(i for _, i in known))

    def choose(
        self,
        logits: Float[Tensor, " classes"],
        sample: Sample,
        selection: Selection,
        visible: VisibleObjects,
    ) -> Chosen | str:
        classes = selection.classes
        if sample.masks is not None and classes:
            by_position = dict(zip(selection.positions, selection.classes, strict=True))
            classes = tuple(by_position[i] for i in visible.positions)
        classes = classes or (int(logits.argmax()),)
        label = sample.label
        if label is None and selection.classes:
            label = classes[0]
        if self._whole and selection.classes and not self._recognised(logits, set(classes)):
            return "the model does not recognise all of its classes"
        return Chosen(classes, visible.masks, label, visible.skipped)

    def no_match(self, number: int) -> Exception:
        return ModelError(
            f"none of the first {number} images shows a class that {self._model.spec} has; "
            "measure a model with the data set's classes."
        )

    def _recognised(self, logits: Float[Tensor, " classes"], classes: set[int]) -> bool:
        if self._model.activation == "sigmoid":
            return bool((logits[list(classes)] > 0).all())
        return in_top(logits, classes)


class ByMap(Selector):
    """The likeliest class of each category of a class map.

    Args:
        model: a classifier.
        vocabulary: every category of the data set; empty if that is not known.
        class_map: with groups of the model's classes.
        excluded: collects categories of the map that the data set does not have.

    Raises:
        DatasetError: if the data set has no category of the map.
        ModelError: if the model's outputs are no probabilities.
    """

    nothing = "it shows no category of the class map"

    def __init__(
        self, model: Model, vocabulary: Sequence[str], class_map: ClassMap, excluded: Exclusions
    ) -> None:
        if model.activation == "none":
            raise ModelError(
                f"a class map takes classes by their probability, and the outputs of {model.spec} "
                "are no probabilities; give --activation softmax or sigmoid, if they are."
            )
        unknown = [name for name in class_map.groups if vocabulary and name not in vocabulary]
        if len(unknown) == len(class_map.groups):
            raise DatasetError(
                f"the data set has no category of the class map, such as {unknown[0]!r}; it has "
                f"{', '.join(vocabulary[:5])}…"
            )
        for name in unknown:
            excluded.names[name] = "the class map names it, and the data set does not have it"
        self._model, self._map = model, class_map

    def select(self, sample: Sample) -> Selection | None:
        positions = [i for i, name in enumerate(sample.names) if name in self._map.groups]
        return Selection((), tuple(positions)) if positions else None

    def choose(
        self,
        logits: Float[Tensor, " classes"],
        sample: Sample,
        selection: Selection,
        visible: VisibleObjects,
    ) -> Chosen | str:
        activation = self._model.activation
        positions = selection.positions if sample.masks is None else visible.positions
        mapped = map_objects(
            self._map,
            [sample.names[i] for i in positions],
            visible.masks,
            probabilities(logits.double(), activation),
            independent=activation == "sigmoid",
        )
        if not mapped.classes:
            return f"its objects are left out ({mapped.skipped[0][1]})"
        skipped = (*visible.skipped, *mapped.skipped)
        return Chosen(mapped.classes, mapped.masks, mapped.classes[0], skipped)

    def no_match(self, number: int) -> Exception:
        return DatasetError(
            f"none of the first {number} images shows a category of the class map; give a map with "
            "the data set's names."
        )


def in_top(logits: Float[Tensor, " classes"], classes: Collection[int]) -> bool:
    """Whether k classes are the k with the highest logits."""
    return set(logits.topk(len(classes)).indices.tolist()) == set(classes)
