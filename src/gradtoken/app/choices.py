"""Which classes are offered to be explained, and which are ticked at first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gradtoken.app.limits import Limits
from gradtoken.errors import TargetError
from gradtoken.explanation.explanation import Explanation
from gradtoken.targets import contrast, text
from gradtoken.targets.labels import Labels

OFFERED = 10
"""Classes in the list, before those that are ticked or searched for."""

_LIKELY, _AT_FIRST = 0.1, 3
"""Classes with at least this probability are ticked at first, so many of them at most."""

Choice = tuple[str, int]
"""What is written beside a box, and the class or prompt it stands for."""


def choices(
    names: Sequence[str],
    probabilities: Sequence[float],
    ticked: Sequence[int] = (),
    query: str = "",
    *,
    whole: bool = False,
) -> list[Choice]:
    """The list of classes or prompts: the likeliest, or those a search finds; ticked ones stay.

    Classes are called by the first of their synonyms, prompts by their `whole` text.
    """
    found = search(names, query) if query.strip() else range(len(names))
    ranked = sorted(found, key=lambda index: _last_if_nan(probabilities[index]))[:OFFERED]
    kept = [index for index in ticked if index not in ranked]
    shown = {i: names[i] if whole else short(names[i]) for i in [*ranked, *kept]}
    return [(_with_probability(name, probabilities[i]), i) for i, name in shown.items()]


def _with_probability(name: str, probability: float) -> str:
    """A class's name and, where the model has one, its probability."""
    return name if math.isnan(probability) else f"{name} · {percent(probability)}"


def _last_if_nan(probability: float) -> float:
    """A key that sorts the largest probability first."""
    return math.inf if math.isnan(probability) else -probability


def search(names: Sequence[str], query: str) -> list[int]:
    """Classes whose name has all the words of a query in it, in any case, or whose id it is."""
    words = query.casefold().split()
    return [
        index
        for index, name in enumerate(names)
        if all(word in name.casefold() for word in words) or query.strip() == str(index)
    ]


def ticked_at_first(probabilities: Sequence[float]) -> list[int]:
    """The likeliest class, and the next ones if they are likely too."""
    ranked = sorted(range(len(probabilities)), key=lambda i: _last_if_nan(probabilities[i]))
    return [i for n, i in enumerate(ranked[:_AT_FIRST]) if n == 0 or probabilities[i] >= _LIKELY]


def read_prompts(written: str, limits: Limits) -> tuple[str, ...]:
    """Prompts, one a line.

    Raises:
        TargetError: none, too many or too long ones.
    """
    prompts = tuple(dict.fromkeys(line.strip() for line in written.splitlines() if line.strip()))
    if not prompts:
        raise TargetError("there is no prompt; write one a line, such as: a photo of a cat.")
    if len(prompts) > limits.prompts or max(map(len, prompts)) > limits.prompt_letters:
        raise TargetError(
            f"these are {len(prompts)} prompts, the longest of {max(map(len, prompts))} letters; "
            f"write at most {limits.prompts} of at most {limits.prompt_letters} letters."
        )
    return prompts


def targets(
    ticked: Sequence[int],
    a: int | None,
    b: int | None,
    *,
    labels: Labels,
    prompts: tuple[str, ...],
    limits: Limits,
) -> tuple[Any, ...]:
    """What the ticked boxes and the contrast ask for, as `explain` takes it.

    Raises:
        TargetError: too many, a contrast of a class with itself, or one that is not there.
    """
    asked = [index for index in (a, b) if index is not None]
    for indices in (ticked, asked):
        check_indices(indices, len(prompts) if prompts else len(labels))
    if len(asked) == 2 and a == b:
        raise TargetError("A and B are the same class, so there is no contrast; choose two.")
    kinds: Sequence[Any] = text(*prompts) if prompts else range(len(labels))
    wanted = [kinds[index] for index in ticked]
    if len(asked) == 2:
        wanted.append(contrast(kinds[asked[0]], kinds[asked[1]]))
    if len(wanted) > limits.targets:
        raise TargetError(
            f"{len(wanted)} maps are asked for, above the limit of {limits.targets}; untick some."
        )
    return tuple(wanted)


def check_indices(indices: Any, known: int) -> None:
    """See that indices are among `known` classes or prompts.

    Raises:
        TargetError: names one that is not.
    """
    for index in indices if isinstance(indices, (list, tuple)) else [None]:
        if type(index) is not int or not 0 <= index < known:
            raise TargetError(f"{index!r} is not in the list of classes; choose one that is.")


def short(name: str) -> str:
    """The first of a class's synonyms."""
    return name.split(",", maxsplit=1)[0]


def called(explanation: Explanation) -> list[str]:
    """What to call each target: classes by their first synonym, prompts by their text."""
    return [
        " vs ".join(map(short, label.split(" vs "))) if target.classes() else label
        for target, label in zip(explanation.targets.rows[0], explanation.labels[0], strict=True)
    ]


def percent(probability: float) -> str:
    """A probability for people."""
    return f"{probability:.1%}" if probability >= 0.001 else "< 0.1%"
