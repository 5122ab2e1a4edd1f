"""Which class of a model a data set means by a name.

A name is matched where one class of the model, and no other, has it as its name or a synonym. That
is not enough for words that mean several things: COCO's kite is a toy, ImageNet's a bird. Such a
name is matched only where the class tells its meaning by a synonym, or where the model has every
name of the data set, and so means what the data set means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradtoken.targets.labels import Labels


@dataclass(frozen=True)
class Sense:
    """What the data sets mean by a word of several meanings.

    Args:
        meant: in words.
        synonyms: names that a class of the same meaning can have.
        imagenet: the class of ImageNet's thousand that means the same, if one does.
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
"""Names of COCO, VOC and the bundled scenes that class lists in use give to something else. Found
by comparing them with the classes of ImageNet 1k, 12k, 21k and 22k, and of CIFAR-100."""

_IMAGENET = (1000, {"tench": 0, "goldfish": 1, "zebra": 340, "umbrella": 879})
"""How ImageNet's thousand classes are told: their number, and where some of them are."""


class Matcher:
    """Looks a data set's names up among a model's classes.

    Args:
        labels: the model's.
        vocabulary: every name of a data set that gives them meanings of its own; none where its
            names are meant as the model's.

    Attributes:
        unclear: names that were looked up and have several meanings or classes, and why they are
            not matched.
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
        """The id of the class that a name means; None if there is none, or it is not clear."""
        found = self._labels.named(name)
        sense = SENSES.get(name.casefold()) if self._foreign else None
        if found is None:
            if len(several := self._labels.all_named(name)) > 1:
                self.unclear[name] = f"the model has {len(several)} classes of this name"
            return None
        if sense is None or any(self._labels.named(s) == found for s in sense.synonyms):
            return found
        if self._imagenet and found == sense.imagenet:
            return found
        self.unclear[name] = (
            f"the data set means {sense.meant}, and the model's {self._labels[found]!r} can be "
            "the other"
        )
        return None
