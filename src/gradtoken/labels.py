"""Class names: looking them up both ways."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gradtoken.errors import TargetError, did_you_mean, printable


class Labels(Sequence[str]):
    """The names of a model's classes, in the order of its outputs.

    Args:
        names: one name per class; synonyms may be separated by commas ("tabby, tabby cat"). What
            is not printable (terminal codes, say, in a stranger's file) becomes a mark.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(printable(str(name)) for name in names)
        self._ids: dict[str, set[int]] = {}
        for index, name in enumerate(self._names):
            for alias in {name, *name.split(",")}:
                self._ids.setdefault(_fold(alias), set()).add(index)

    @classmethod
    def numbered(cls, count: int) -> Labels:
        """Names for classes nobody named: "class 0", "class 1", …"""
        return cls([f"class {index}" for index in range(count)])

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
        """The id of the one class that has a name or synonym; None if none has it, or several."""
        ids = self.all_named(name)
        return ids[0] if len(ids) == 1 else None

    def all_named(self, name: str) -> list[int]:
        """The ids of the classes that have a name or synonym (any case), in order."""
        return sorted(self._ids.get(_fold(name), ()))

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self._names):
            raise TargetError(
                f"class id {index} is out of range; this model has {len(self._names)} classes, "
                f"0 to {len(self._names) - 1}."
            )
        return index


def _fold(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
