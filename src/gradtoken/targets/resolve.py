"""Turning the targets that a user requests into `Target` objects."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from gradtoken.errors import TargetError
from gradtoken.targets.activation import Activation
from gradtoken.targets.base import Target
from gradtoken.targets.classes import Against, ClassTarget, Contrast, LogProb
from gradtoken.targets.finer import Finer, PendingFiner
from gradtoken.targets.functions import OutputTarget
from gradtoken.targets.labels import Labels
from gradtoken.targets.multi_hot import Array, as_list, as_rows, row_of_targets
from gradtoken.targets.pending import Pending, Prompt
from gradtoken.targets.prompts import PromptBatch
from gradtoken.targets.similarity import Similarity, SimilarityContrast
from gradtoken.targets.targets import Targets
from gradtoken.targets.threshold import Above


def resolve(
    targets: Any,
    logits: Float[Tensor, "batch classes"],
    labels: Labels,
    *,
    top_k: int = 1,
    prompts: Callable[[tuple[str, ...]], PromptBatch] | None = None,
    activation: Activation = "softmax",
) -> Targets:
    """Turn requested targets into `Targets`.

    Args:
        targets: as for `resolve_rows`.
        logits: the model's output, (B, C).
        labels: the names of the model's classes.
        top_k: how many predicted classes where `targets` is None.
        prompts: as for `resolve_rows`.
        activation: of the model.

    Raises:
        TargetError: as `resolve_rows`, and if the images have different numbers of targets.
    """
    return Targets(
        resolve_rows(targets, logits, labels, top_k=top_k, prompts=prompts, activation=activation)
    )


def resolve_rows(
    targets: Any,
    logits: Float[Tensor, "batch classes"],
    labels: Labels,
    *,
    top_k: int = 1,
    prompts: Callable[[tuple[str, ...]], PromptBatch] | None = None,
    activation: Activation = "softmax",
) -> list[list[Target]]:
    """Turn requested targets into a list of `Target` for each image.

    Args:
        targets: None (the `top_k` predicted classes of each image), "all" classes, `above(p)`, one
            id, name, `contrast(a, b)`, `log_prob(c)`, `finer(c)`, `Target` or function of the
            output; a list of these for all images; or one list per image. Integer tensors and
            arrays count as lists.
        logits: the model's output, (B, C).
        labels: the names of the model's classes.
        top_k: how many predicted classes where `targets` is None.
        prompts: encodes text, for a model that compares images with it; the targets are then
            `text(…)` or functions of the image's embedding.
        activation: of the model, for `above(p)`, `log_prob(c)` and `finer(c)`.

    Raises:
        TargetError: unknown names (with the nearest ones), ids out of range, or a
            probability where the outputs are no probabilities.
    """
    rows = _rows(targets, logits, labels, top_k=top_k, prompts=prompts, activation=activation)
    return [
        [t.nearest(z, activation) if isinstance(t, Finer) else t for t in row]
        for row, z in zip(rows, logits, strict=True)
    ]


def _rows(
    targets: Any,
    logits: Float[Tensor, "batch classes"],
    labels: Labels,
    *,
    top_k: int,
    prompts: Callable[[tuple[str, ...]], PromptBatch] | None,
    activation: Activation,
) -> list[list[Target]]:
    """The targets of each image, as `resolve_rows`, some of which have yet to see its logits."""
    batch = len(logits)
    if prompts is not None and targets is None:
        raise TargetError(
            "this model compares images with text and has no classes of its own; give prompts, "
            'as in targets=text("a photo of a cat", "a photo of a dog") (--text on the command '
            "line)."
        )
    if prompts is None:
        chosen = _chosen(targets, logits, top_k, activation)
        if chosen is not None:
            return chosen
    encode = cache(prompts) if prompts else None
    resolve_item = partial(_resolve_item, labels=labels, encode=encode, activation=activation)
    split = row_of_targets if prompts is None else _row_without_marks
    rows = per_image(targets, batch)
    if rows is not None:
        items = [split(row, logits.shape[-1]) for row in rows]
        return [[resolve_item(item) for item in row] for row in items]
    if not _is_list(targets):
        return [[resolve_item(targets)]] * batch
    if not isinstance(targets, Array) and any(_is_list(item) for item in targets):
        raise TargetError(
            "the targets mix lists and single targets; give one list for all images, or one list "
            "per image."
        )
    return [[resolve_item(item) for item in split(targets, logits.shape[-1])]] * batch


def _chosen(
    targets: Any, logits: Float[Tensor, "batch classes"], top_k: int, activation: Activation
) -> list[list[Target]] | None:
    """The targets that the logits choose, or that are all; None where the user names them."""
    kind: Callable[[int], Target] = ClassTarget
    if isinstance(targets, Above):
        if targets.finer is not None:
            kind = PendingFiner(Finer, (), *targets.finer).of_class
        return [[kind(t.id) for t in row] for row in targets.rows(logits, activation)]
    if isinstance(targets, PendingFiner) and (targets.predicted or targets.of_all):
        kind, targets = targets.of_class, "all" if targets.of_all else None
    if targets is None:
        return [[kind(index) for index in row] for row in _predicted(logits, top_k)]
    if isinstance(targets, str) and targets == "all":
        return [[kind(index) for index in range(logits.shape[-1])]] * len(logits)
    return None


def _predicted(logits: Float[Tensor, "batch classes"], top_k: int) -> list[list[int]]:
    """Ids of the `top_k` classes of each image with the largest logits, the largest first."""
    classes = logits.shape[-1]
    if type(top_k) is not int or not 1 <= top_k <= classes:
        raise TargetError(
            f"top_k is {top_k!r}; this model has {classes} classes, use 1 to {classes}."
        )
    ids: list[list[int]] = logits.topk(top_k, dim=-1).indices.tolist()
    return ids


def per_image(targets: Any, count: int) -> list[Any] | None:
    """The list of targets of each of `count` images; None if all images have the same targets.

    Raises:
        TargetError: there are more or fewer lists than images.
    """
    if isinstance(targets, Array) and targets.ndim > 2:
        raise TargetError(
            f"targets of shape {tuple(targets.shape)} are no list for each image; give (B, K) ids "
            "or (B, C) bools."
        )
    if isinstance(targets, Array) and targets.ndim == 2:
        targets = as_rows(targets)
    elif isinstance(targets, Array):
        return None
    if not _is_list(targets) or not len(targets) or not all(_is_list(row) for row in targets):
        return None
    if len(targets) != count:
        raise TargetError(
            f"{len(targets)} lists of targets were given for {count} images; give one per image, "
            "or one flat list for all."
        )
    return list(targets)


def _row_without_marks(row: Any, _: int) -> list[Any]:
    """The targets in a row for a model without classes, which no multi-hot row can mark."""
    return list(as_list(row) if isinstance(row, Array) else row)


def _checked(target: Target, labels: Labels) -> Target:
    """A `Target` that a user made, if the model has its classes.

    Raises:
        TargetError: a class that is no id in range, or weights that are no finite numbers.
    """
    try:
        ids, terms = target.classes(), target.terms() or {}
        if isinstance(target, Against) and not target.others:
            raise ValueError("nothing to be set against")
    except (TypeError, ValueError):
        raise TargetError(
            f"{target!r} is no target: its classes must be ids (at least one to be set against), "
            "its weights numbers."
        ) from None
    for index in ids:
        if type(index) is not int:
            raise TargetError(
                f"{target!r} names the class {index!r}, but targets made by hand take ids; use "
                "contrast(…), log_prob(…) or the name itself."
            )
        labels.find(index)
    if not all(math.isfinite(weight) for weight in terms.values()):
        raise TargetError(f"{target!r} has a weight that is no finite number.")
    return target


def _is_list(item: Any) -> bool:
    return isinstance(item, (list, tuple)) or getattr(item, "ndim", 0) > 0


def _as_prompts(item: Any) -> str:
    """The expression with prompts for a target that was requested with classes."""
    if not isinstance(item, Pending):
        return f'text("{item}")'
    prompts = ", ".join(f'"{c}"' for c in item.classes)
    return f"contrast(*text({prompts}))" if item.kind is Contrast else f"text({prompts})"


def _resolve_item(
    item: Any,
    labels: Labels,
    encode: Callable[[tuple[str, ...]], PromptBatch] | None,
    activation: Activation,
) -> Target:
    target = _as_target(item, labels, encode)
    return target.of(activation) if isinstance(target, LogProb) else target


def _as_target(
    item: Any, labels: Labels, encode: Callable[[tuple[str, ...]], PromptBatch] | None
) -> Target:
    if isinstance(item, Prompt):
        if encode is None:
            raise TargetError(
                "text(…) is for models that compare images with text, such as CLIP; this one has "
                "classes, so give their names or ids."
            )
        return Similarity(item.prompts[item.index], item.index, encode(item.prompts))
    if isinstance(item, Pending) and any(isinstance(c, Prompt) for c in item.classes):
        sides = [_as_target(c, labels, encode) for c in item.classes]
        prompts = [target for target in sides if isinstance(target, Similarity)]
        if item.kind is not Contrast or len(prompts) != 2:
            raise TargetError("a prompt is explained by itself, or in contrast(…) with a prompt.")
        return SimilarityContrast(*prompts)
    if encode is not None and isinstance(item, (PendingFiner, Finer)):
        raise TargetError(
            "finer(…) sets a class against the other classes of a model, and this one compares "
            "pictures with text; set prompts against each other with contrast(*text(a, b))."
        )
    if encode is not None and not callable(item) and not isinstance(item, Target):
        raise TargetError(
            f"{item!r} is no target of a model that compares images with text; give prompts, as "
            f"in targets={_as_prompts(item)}."
        )
    if isinstance(item, Above):
        raise TargetError(
            f"above({item.probability:g}) is as many classes as an image has, so it is given "
            f"alone: targets=above({item.probability:g})."
        )
    if isinstance(item, Target):
        return _checked(item, labels)
    if isinstance(item, Pending):
        return item.resolve(labels)
    if callable(item) and not isinstance(item, type):
        return OutputTarget(item)
    if item is None:
        raise TargetError(
            "None is no target; use a class id or name, contrast(a, b), log_prob(c) or a function "
            "of the output."
        )
    return ClassTarget(labels.find(item))
