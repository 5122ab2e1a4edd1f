"""Class names, by id and by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from gradtoken.errors import ModelError, TargetError, did_you_mean, printable

Names: TypeAlias = Sequence[str] | Mapping[int, str] | Mapping[str, str] | Mapping[str, int]
"""Class names: in order, by id (`id2label`), or as a map to ids (`label2id`)."""


class Labels(Sequence[str]):
    """The names of a model's classes, in the order of its outputs.

    Args:
        names: one name per class; synonyms may be separated by commas ("tabby, tabby cat").
            Characters that are not printable, such as terminal codes, are replaced by a mark.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(printable(str(name)) for name in names)
        self._ids: dict[str, set[int]] = {}
        for index, name in enumerate(self._names):
            for alias in {name, *name.split(",")}:
                self._ids.setdefault(_fold(alias), set()).add(index)

    @classmethod
    def numbered(cls, count: int) -> Labels:
        """Labels for classes without names: "class 0", "class 1" and so on."""
        return cls([f"class {index}" for index in range(count)])

    @classmethod
    def from_names(cls, names: Names, count: int, spec: str) -> Labels:
        """Labels from the names that a user has for a model's classes.

        Args:
            names: one name per class, in order; or a complete map from id to name (ids may be
                text, as in JSON) or from name to id.
            count: the number of classes.
            spec: the model, for errors.

        Raises:
            ModelError: another number of names, an incomplete map, or names in no order.
        """
        ordered = _from_map(names, count, spec) if isinstance(names, Mapping) else _as_list(names)
        if ordered is None:
            raise ModelError(
                f"the labels are a {type(names).__name__}, which is no list of names; give one "
                "name per class in a list, or a map from id to name."
            )
        if len(ordered) != count:
            raise ModelError(f"{len(ordered)} labels were given for the {count} classes of {spec}.")
        return cls(ordered)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: Any) -> Any:
        return self._names[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def find(self, item: int | str) -> int:
        """The id of a class given by id, by name (any case, any synonym) or by an id as text.

        Raises:
            TargetError: unknown, ambiguous or out of range; the nearest names are suggested.
        """
        if getattr(item, "ndim", None) == 0 and not getattr(item, "is_meta", False):
            item = item.item()  # type: ignore[union-attr]
        if isinstance(item, bool) or not isinstance(item, (int, str)):
            raise TargetError(f"{item!r} is no class; use an id or a name.")
        if isinstance(item, int):
            return self._checked(item)
        ids = self._ids.get(_fold(item), set())
        if len(ids) == 1:
            return next(iter(ids))
        if ids:
            raise TargetError(
                f"{item!r} names several classes: {', '.join(map(str, sorted(ids)))}; use the id."
            )
        try:
            return self._checked(int(item))
        except ValueError as error:
            if isinstance(error, TargetError):
                raise
        known = (alias.strip() for name in self._names for alias in name.split(","))
        hint = did_you_mean(item, known) or "; model.labels lists the names."
        raise TargetError(f"no class is named {item!r}{hint}")

    def named(self, name: str) -> int | None:
        """The id of the only class with a name or synonym; None if no class or several have it."""
        ids = self.all_named(name)
        return ids[0] if len(ids) == 1 else None

    def all_named(self, name: str) -> list[int]:
        """The ids of the classes with a name or synonym (any case), in order."""
        return sorted(self._ids.get(_fold(name), ()))

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self._names):
            raise TargetError(
                f"class id {index} is out of range; this model has {len(self._names)} classes, "
                f"0 to {len(self._names) - 1}."
            )
        return index


def _as_list(names: Any) -> list[Any] | None:
    """Names as a list; None if they have no order."""
    if isinstance(names, np.ndarray):
        return list(names.tolist()) if names.ndim == 1 else None
    text = isinstance(names, (str, bytes, bytearray, memoryview))
    return list(names) if isinstance(names, Sequence) and not text else None


def _from_map(names: Mapping[Any, Any], count: int, spec: str) -> list[str]:
    """The names in a map from id to name or from name to id, by id."""
    to_ids = all(isinstance(key, str) for key in names) and all(
        _is_id(value) for value in names.values()
    )
    pairs = [(value, key) if to_ids else (key, value) for key, value in names.items()]
    by_id = {_id(index): name for index, name in pairs}
    if not all(isinstance(name, str) for name in by_id.values()) or -1 in by_id:
        raise ModelError(
            "the labels are a map neither from ids to names nor from names to ids; give "
            "{0: 'first class', 1: 'second class', …}, or a list of names."
        )
    if sorted(by_id) != list(range(count)) or len(by_id) < len(names):
        raise ModelError(
            f"the map of labels {_defect(by_id, len(names), count)}: {spec} has {count} classes, "
            f"0 to {count - 1}, and each needs one name."
        )
    return [by_id[index] for index in range(count)]


def _defect(by_id: Mapping[Any, str], entries: int, count: int) -> str:
    """The defect of a map from ids to names that had so many entries."""
    missing = [index for index in range(count) if index not in by_id]
    if missing:
        return f"has no name for class {missing[0]} ({len(missing)} missing)"
    return "names a class twice" if len(by_id) < entries else f"has an id {max(by_id)}"


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))


def _id(value: Any) -> int:
    """An id, also as text; -1 for anything else."""
    as_text = isinstance(value, str) and value.isdecimal()
    return max(int(value), -1) if as_text or _is_id(value) else -1


def _fold(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
