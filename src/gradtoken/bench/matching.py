"""Matching a data set's class names to a model's classes.

A name is matched if exactly one class of the model has it as its name or a synonym. Words with
several meanings need more: COCO's kite is a toy, ImageNet's a bird. Such a name is matched only
where a synonym of the class has the data set's meaning, or where the model has every name of the
data set, so that its names mean the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradtoken.targets.labels import Labels


@dataclass(frozen=True)
class Sense:
    """The meaning that a word of several meanings has in the data sets.

    Args:
        meant: the meaning, in words.
        synonyms: other names of a class of this meaning.
        imagenet: id of the class of ImageNet-1k with this meaning, if there is one.
    """

    meant: str
    synonyms: tuple[str, ...]
    imagenet: int | None = None


SENSES = {
    "bell": Sense("one that is struck or rung by hand, not a chime", ("hand bell", "church bell")),
    "cake": Sense("a dessert, not a patty", ("birthday cake", "layer cake", "torte")),
    "keyboard": Sense("that of a computer, not of an instrument", ("computer keyboard",)),
    "kite": Sense("a toy on a line, not a bird of prey", ("toy kite", "kite (toy)")),
    "motorbike": Sense("a motorcycle, not a minibike", ("motorcycle", "motor cycle")),
    "mouse": Sense("that of a computer, not the animal", ("computer mouse",), imagenet=673),
    "tie": Sense("a necktie, not a beam or a sleeper", ("necktie", "neck tie")),
    "toilet": Sense("the seat, not the room", ("toilet seat", "toilet bowl", "flush toilet")),
}
"""Names of COCO, VOC and the bundled scenes that have another meaning in common class lists: the
result of a comparison with the classes of ImageNet 1k, 12k, 21k and 22k, and of CIFAR-100."""

_IMAGENET = (1000, {"tench": 0, "goldfish": 1, "zebra": 340, "umbrella": 879})
"""What identifies ImageNet-1k: the number of classes, and the ids of some of them."""


class Matcher:
    """Finds the class of a model that a name of a data set means.

    Args:
        labels: the model's.
        vocabulary: every class name of a data set whose names have meanings of their own; empty
            where names mean the model's classes.

    Attributes:
        unclear: names that were looked up and are ambiguous, each with the reason why it is not
            matched.
    """

    def __init__(self, labels: Labels, vocabulary: Sequence[str] = ()) -> None:
        self.unclear: dict[str, str] = {}
        self._labels = labels
        self._foreign = any(labels.named(name) is None for name in vocabulary)
        count, places = _IMAGENET
        self._imagenet = len(labels) == count and all(
            labels.named(name) == place for name, place in places.items()
        )

    def find(self, name: str) -> int | None:
        """The id of the class that a name means; None if there is none, or it is ambiguous."""
        label = self._labels.named(name)
        sense = SENSES.get(name.casefold()) if self._foreign else None
        if label is None:
            if len(candidates := self._labels.all_named(name)) > 1:
                self.unclear[name] = f"the model has {len(candidates)} classes of this name"
            return None
        if sense is None or any(self._labels.named(s) == label for s in sense.synonyms):
            return label
        if self._imagenet and label == sense.imagenet:
            return label
        self.unclear[name] = (
            f"the data set means {sense.meant}, and the model's {self._labels[label]!r} can be "
            "the other"
        )
        return None
