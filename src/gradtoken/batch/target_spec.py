"""The targets of a batch job: the same for every image, or a column's value for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradtoken.errors import TargetError
from gradtoken.targets.activation import Activation
from gradtoken.targets.labels import Labels

KINDS = "top:K, above:P, all, class ids or names with commas between, column:NAME or text:FILE"
_MAX_PROMPTS_FILE = 1 << 22


@dataclass(frozen=True)
class TargetSpec:
    """Which targets are explained for every image. One of the fields but `finer` is set.

    Args:
        top_k: the number of predicted classes to explain.
        classes: class ids or names, or "all".
        prompts: texts to compare images with, for models such as CLIP.
        column: the column of the source that names each image's own targets.
        above: every class with a higher probability than this.
        finer: alpha and count of FinerCAM's target, to set each class against its nearest ones.
    """

    top_k: int | None = None
    classes: tuple[str, ...] | str | None = None
    prompts: tuple[str, ...] | None = None
    column: str | None = None
    above: float | None = None
    finer: tuple[float, int] | None = None

    @classmethod
    def parse(cls, text: str) -> TargetSpec:
        """Parse the value of `--targets`: one of `KINDS`.

        Raises:
            TargetError: it is none of them, or a file of prompts that cannot be read.
        """
        kind, mark, rest = text.partition(":")
        if mark and kind == "top":
            if not rest.isdecimal() or not 1 <= len(rest) < 7 or int(rest) < 1:
                raise TargetError(f"--targets {text!r}: give a number of classes, as in top:3.")
            return cls(top_k=int(rest))
        if mark and kind == "above":
            return cls.likely(_parse_probability(text, rest))
        if mark and kind == "column":
            if not rest:
                raise TargetError("--targets column: needs a name, as in column:label.")
            return cls(column=rest)
        if mark and kind == "text":
            return cls(prompts=_read_prompts(rest))
        if text.strip() == "all":
            return cls(classes="all")
        names = tuple(name.strip() for name in text.split(",") if name.strip())
        if not names:
            raise TargetError(f"--targets is empty; give {KINDS}.")
        return cls(classes=names)

    @classmethod
    def likely(cls, probability: float) -> TargetSpec:
        """Every class with a higher probability than this.

        Raises:
            TargetError: it is not in [0, 1).
        """
        from gradtoken.targets import above

        return cls(above=above(probability).probability)

    def settings(self) -> dict[str, Any]:
        """The fields that are set, as plain data for the manifest."""
        fields: dict[str, Any] = {"top_k": self.top_k, "classes": self.classes}
        fields |= {"column": self.column, "prompts": self.prompts, "above": self.above}
        fields["finer"] = self.finer
        return {name: value for name, value in fields.items() if value is not None}

    def check(
        self, labels: Labels, has_prompts: bool, spec: str, activation: Activation = "softmax"
    ) -> None:
        """Check, before any image is read, that a model has these targets.

        Args:
            labels: class names of the model.
            has_prompts: whether the model compares images with text.
            spec: name of the model, for errors.
            activation: how the model's logits become probabilities.

        Raises:
            TargetError: unknown classes, prompts for a model without a text encoder, or `above` for
                a model whose outputs are not probabilities.
        """
        if has_prompts and self.prompts is None and self.column is None:
            raise TargetError(
                f"{spec} compares images with text and has no classes of its own; give "
                "--targets text:FILE with a prompt on each line."
            )
        if self.finer is not None and has_prompts:
            raise TargetError(
                f"--finer sets classes against each other, and {spec} compares pictures with text; "
                "leave it out."
            )
        if self.prompts is not None and not has_prompts:
            raise TargetError(f"{spec} reads no text; give --targets with classes, or top:3.")
        if isinstance(self.classes, tuple):
            for name in self.classes:
                labels.find(name)
        if self.top_k is not None and self.top_k < 1:
            raise TargetError(f"top_k is {self.top_k}; give a number of classes, as in top:3.")
        if self.top_k is not None and self.top_k > len(labels):
            raise TargetError(f"top:{self.top_k} is too many; {spec} has {len(labels)} classes.")
        if self.above is not None and activation == "none":
            raise TargetError(
                f"above:{self.above:g} needs probabilities, and the outputs of {spec} are none "
                "(activation none); give top:K or classes."
            )
        if self.finer is not None and activation == "none":
            raise TargetError(
                f"--finer needs probabilities, and the outputs of {spec} are none (activation "
                "none); leave it out."
            )

    def shared(self, labels: Labels) -> Any:
        """The targets of every image, as `explain` takes them; None for the predicted classes."""
        from gradtoken.targets import each_finer

        plain = self._plain(labels)
        return plain if self.finer is None else each_finer(plain, self.finer)

    def _plain(self, labels: Labels) -> Any:
        from gradtoken.targets import above, text

        if self.prompts is not None:
            return list(text(*self.prompts))
        if self.above is not None:
            return above(self.above)
        if isinstance(self.classes, tuple):
            return [labels.find(name) for name in self.classes]
        return self.classes

    def own(self, value: str | None, labels: Labels, has_prompts: bool) -> list[Any]:
        """The targets of one image, from its value in the column.

        Args:
            value: JSON of one target or a list of targets. A list with a bool, or a float 0.0 or
                1.0, for each class is multi-hot.
            labels: class names of the model.
            has_prompts: whether the values are prompts, not classes.

        Raises:
            TargetError: no value, an unknown class, or a multi-hot list of integers.
        """
        from gradtoken.targets import each_finer, text
        from gradtoken.targets.multi_hot import row_of_targets

        parsed: Any = json.loads(value) if value is not None else None
        if isinstance(parsed, str) and parsed.lstrip().startswith("["):
            parsed = _parse_list(parsed)
        items: list[Any] = parsed if isinstance(parsed, list) else [parsed]
        if isinstance(parsed, list) and not has_prompts:
            items = row_of_targets(items, len(labels))
        items = [int(i) if isinstance(i, float) and i.is_integer() else i for i in items]
        if not items or any(item in (None, "") for item in items):
            raise TargetError(f"column {self.column!r} names no target here.")
        if has_prompts:
            return list(text(*(str(item) for item in items)))
        classes = [labels.find(item) for item in items]
        return classes if self.finer is None else list(each_finer(classes, self.finer))


def _parse_probability(text: str, number: str) -> float:
    try:
        return float(number)
    except ValueError:
        raise TargetError(
            f"--targets {text!r}: give a probability from 0 to 1, as in above:0.5."
        ) from None


def _parse_list(text: str) -> Any:
    """A list in JSON, or the text itself where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _read_prompts(name: str) -> tuple[str, ...]:
    path = Path(name)
    try:
        if not name or path.stat().st_size > _MAX_PROMPTS_FILE:
            raise TargetError(f"--targets text:{name} is no file of prompts, or too large a one.")
        lines: Sequence[str] = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, TargetError):
            raise
        raise TargetError(f"the prompts in {name!r} cannot be read: {error}.") from None
    prompts = tuple(line.strip() for line in lines if line.strip())
    if not prompts:
        raise TargetError(f"there is no prompt in {name}; write one on each line.")
    return prompts
