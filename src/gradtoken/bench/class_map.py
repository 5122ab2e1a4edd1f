"""A map from a data set's categories to groups of a model's classes.

An ImageNet model knows 118 breeds where COCO has a dog. A class map says which of the model's
classes belong to a category, so that the model is measured on images of several objects: a category
is asked about by the likeliest class of its group, where the model sees the category at all and its
objects are neither tiny nor nearly the whole input.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradtoken.errors import DatasetError, TargetError
from gradtoken.targets.labels import Labels


@dataclass(frozen=True)
class ClassMap:
    """Which classes of a model a category of a data set is, and when it is asked about.

    Args:
        groups: ids of the model's classes by category.
        probability: the least probability of a category's group for it to be asked about: the sum
            over its classes, or of the likeliest where classes are independent (sigmoid).
        area: the least and the largest part of the input's pixels that a category's objects cover,
            in 0..1.

    Raises:
        DatasetError: a probability or area outside of 0 to 1, or areas that leave nothing.
    """

    groups: Mapping[str, tuple[int, ...]]
    probability: float = 0.03
    area: tuple[float, float] = (0.01, 0.6)

    def __post_init__(self) -> None:
        low, high = self.area
        if not (0 <= self.probability <= 1 and 0 <= low < high <= 1):
            raise DatasetError(
                f"a class map cannot have the least probability {self.probability:g} and areas "
                f"from {low:g} to {high:g}; they are parts of 1, and the first area is smaller."
            )

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for settings and fingerprints."""
        groups = {name: list(classes) for name, classes in self.groups.items()}
        return {"groups": groups, "probability": self.probability, "area": list(self.area)}


@dataclass(frozen=True, eq=False)
class MappedObjects:
    """The objects of an image that are asked about.

    Args:
        classes: ids of the model's classes, each once.
        masks: the pixels of each; None without masks.
        skipped: (category, reason) of the others.
    """

    classes: tuple[int, ...]
    masks: Bool[Tensor, "objects height width"] | None
    skipped: tuple[tuple[str, str], ...]


def read_class_map(
    path: Path,
    labels: Labels,
    *,
    probability: float = 0.03,
    area: tuple[float, float] = (0.01, 0.6),
) -> ClassMap:
    """A class map from a JSON file: {category: [ids or names of the model's classes]}.

    Args:
        path: of the file.
        labels: the model's.
        probability: as for `ClassMap`.
        area: as for `ClassMap`.

    Raises:
        DatasetError: a file that cannot be read or is no class map, a category that is there twice,
            or classes that the model does not have.
    """
    try:
        content = json.loads(path.read_text("utf-8"), object_pairs_hook=_without_repeats)
    except OSError as error:
        raise DatasetError(f"the class map {path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"the class map {path} cannot be read: {error}.") from None
    if not isinstance(content, dict) or not content:
        raise DatasetError(
            f"{path} is no class map; it is to be a JSON object that gives each category of the "
            'data set a list of classes of the model, as {"dog": [151, "beagle"]}.'
        )
    groups = {name: _ids(path, name, classes, labels) for name, classes in content.items()}
    return ClassMap(groups, probability, area)


def map_objects(
    class_map: ClassMap,
    names: Sequence[str],
    masks: Bool[Tensor, "objects height width"] | None,
    probabilities: Float[Tensor, " classes"],
    *,
    independent: bool,
) -> MappedObjects:
    """The classes to ask about in an image, and the pixels of each.

    Objects of one category are taken together, and so are categories whose likeliest class is the
    same.

    Args:
        class_map: with a group for each of the names.
        names: the category of each object.
        masks: the pixels of each object on the model's input; None without masks.
        probabilities: of the model's classes.
        independent: whether each class has a probability of its own (sigmoid).
    """
    low, high = class_map.area
    positions: dict[int, list[int]] = {}
    skipped: list[tuple[str, str]] = []
    for name in dict.fromkeys(names):
        group = list(class_map.groups[name])
        of_group = probabilities[group]
        total = float(of_group.max() if independent else of_group.sum())
        if total < class_map.probability:
            skipped.append(
                (name, f"the model gives its classes less than {class_map.probability:g}")
            )
            continue
        own = [i for i, other in enumerate(names) if other == name]
        positions.setdefault(group[int(of_group.argmax())], []).extend(own)
    if masks is None:
        return MappedObjects(tuple(positions), None, tuple(skipped))
    whole = {c: masks[own].any(0) for c, own in positions.items()}
    kept = {}
    for c, mask in whole.items():
        area = float(mask.double().mean())
        if low <= area <= high:
            kept[c] = mask
            continue
        side = f"less than {low:g}" if area < low else f"more than {high:g}"
        skipped.append((names[positions[c][0]], f"it covers {side} of the model's input"))
    stacked = torch.stack(list(kept.values())) if kept else None
    return MappedObjects(tuple(kept), stacked, tuple(skipped))


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has {twice!r} twice")
    return content


def _ids(path: Path, name: str, classes: Any, labels: Labels) -> tuple[int, ...]:
    if not isinstance(classes, list) or not classes:
        raise DatasetError(
            f"the class map {path} gives {name!r} no list of classes; write their ids or names, as "
            "in [151, 152]."
        )
    try:
        return tuple(dict.fromkeys(labels.find(item) for item in classes))
    except TargetError as error:
        raise DatasetError(
            f"the class map {path} is not for this model, at {name!r}: {error}"
        ) from None
