"""What is explained: one scalar of a model's output per map.

A target turns logits into a scalar y. Class ids and names, contrasts, log-probabilities and any
function of the output are targets; `Targets` holds the K targets of each of B images.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.errors import TargetError
from gradtoken.labels import Labels
from gradtoken.prompts import PromptBatch

Logits: TypeAlias = Float[Tensor, "*rows classes"]
Scores: TypeAlias = Float[Tensor, "*rows"]


class Target(ABC):
    """One thing to explain: a scalar of the logits."""

    @abstractmethod
    def score(self, logits: Logits) -> Scores:
        """The scalar y for each row of logits: (…, C) -> (…)."""

    @abstractmethod
    def label(self, labels: Labels) -> str:
        """What to call it for people."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The target as plain data, for manifests."""

    def classes(self) -> tuple[int, ...]:
        """The ids of the classes it speaks of."""
        return ()

    def terms(self) -> dict[int, float] | None:
        """The weight of each logit in y where y is a weighted sum of logits, else None."""
        return None

    def probability(self, logits: Logits) -> Scores:
        """The softmax probability of the class explained; NaN where the target is no class."""
        return logits.new_full(logits.shape[:-1], math.nan)


@dataclass(frozen=True)
class ClassTarget(Target):
    """The logit of one class, y = z_c."""

    id: int

    def score(self, logits: Logits) -> Scores:
        return logits[..., self.id]

    def terms(self) -> dict[int, float] | None:
        return {self.id: 1.0}

    def label(self, labels: Labels) -> str:
        return labels[self.id]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "logit", "id": self.id}

    def classes(self) -> tuple[int, ...]:
        return (self.id,)

    def probability(self, logits: Logits) -> Scores:
        return logits.softmax(-1)[..., self.id]


@dataclass(frozen=True)
class LogProb(ClassTarget):
    """The log-probability of one class, y = log softmax(z)_c."""

    def score(self, logits: Logits) -> Scores:
        return logits.log_softmax(-1)[..., self.id]

    def terms(self) -> None:
        return None

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "log_prob", "id": self.id}


@dataclass(frozen=True)
class Contrast(Target):
    """Why a and not b: y = z_a - z_b."""

    a: int
    b: int

    def score(self, logits: Logits) -> Scores:
        return logits[..., self.a] - logits[..., self.b]

    def terms(self) -> dict[int, float]:
        return {self.a: 1.0, self.b: -1.0} if self.a != self.b else {self.a: 0.0}

    def label(self, labels: Labels) -> str:
        return f"{labels[self.a]} vs {labels[self.b]}"

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "contrast", "a": self.a, "b": self.b}

    def classes(self) -> tuple[int, ...]:
        return (self.a, self.b)


@dataclass(frozen=True)
class Against(ClassTarget):
    """One class against others: y = z_c - weight * mean of z over `others`."""

    others: tuple[int, ...]
    weight: float = 1.0

    def score(self, logits: Logits) -> Scores:
        return logits[..., self.id] - self.weight * logits[..., list(self.others)].mean(-1)

    def terms(self) -> dict[int, float]:
        found = {self.id: 1.0}
        for other in self.others:
            found[other] = found.get(other, 0.0) - self.weight / len(self.others)
        return found

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": "against",
            "id": self.id,
            "others": list(self.others),
            "weight": self.weight,
        }

    def classes(self) -> tuple[int, ...]:
        return (self.id, *self.others)


@dataclass(frozen=True)
class OutputTarget(Target):
    """Any function of one image's output: (C,) logits to a scalar tensor."""

    function: Callable[[Float[Tensor, " classes"]], Float[Tensor, ""]]

    def score(self, logits: Logits) -> Scores:
        rows = [self._one(row) for row in logits.reshape(-1, logits.shape[-1])]
        return torch.stack(rows).reshape(logits.shape[:-1])

    def _one(self, row: Float[Tensor, " classes"]) -> Float[Tensor, ""]:
        value = self.function(row)
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise TargetError(
                f"a target function gets the logits (C,) of one image and must return one scalar "
                f"tensor, {self._name} returned {got}."
            )
        if value.is_complex():
            raise TargetError(
                f"the target function {self._name} returned a complex number; return a real one."
            )
        if row.requires_grad and not value.requires_grad:
            raise TargetError(
                f"the value of the target function {self._name} does not depend on the output "
                "differentiably, so there is no gradient to explain it with."
            )
        return value.reshape(())

    @property
    def _name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def label(self, labels: Labels) -> str:
        return self._name

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "function", "name": self._name}


@dataclass(frozen=True)
class Pending:
    """A target given by class names or ids, not yet looked up in a model's labels."""

    kind: Callable[..., Target]
    classes: tuple[Any, ...]

    def resolve(self, labels: Labels) -> Target:
        return self.kind(*(labels.find(item) for item in self.classes))


def contrast(a: int | str | Prompt, b: int | str | Prompt) -> Pending:
    """Why class `a` and not class `b`: explains z_a - z_b. Ids or names.

    Two prompts, as in `contrast(*text("a cat", "a dog"))`, set their similarities against each
    other.
    """
    return Pending(Contrast, (a, b))


def log_prob(c: int | str) -> Pending:
    """The log-probability of class `c` (id or name)."""
    return Pending(LogProb, (c,))


@dataclass(frozen=True, eq=False)
class Similarity(Target):
    """How like a picture is to a prompt: the cosine of their embeddings, prompt `index` of some."""

    prompt: str
    index: int
    batch: PromptBatch

    def _cosines(self, embedding: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows prompts"]:
        prompts = self.batch.embeddings.to(embedding.device, embedding.dtype)
        return F.normalize(embedding, dim=-1) @ prompts.T

    def score(self, logits: Logits) -> Scores:
        return self._cosines(logits)[..., self.index]

    def label(self, labels: Labels) -> str:
        return self.prompt

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "text", "prompt": self.prompt}

    def probability(self, logits: Logits) -> Scores:
        """Among the prompts given together (CLIP), or of this prompt alone (SigLIP)."""
        values = self._cosines(logits) * self.batch.scale + self.batch.bias
        shares = values.sigmoid() if self.batch.independent else values.softmax(-1)
        return shares[..., self.index]


@dataclass(frozen=True, eq=False)
class SimilarityContrast(Target):
    """Why prompt a and not prompt b: the difference of their similarities with the picture."""

    a: Similarity
    b: Similarity

    def score(self, logits: Logits) -> Scores:
        return self.a.score(logits) - self.b.score(logits)

    def label(self, labels: Labels) -> str:
        return f"{self.a.prompt} vs {self.b.prompt}"

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "text_contrast", "a": self.a.prompt, "b": self.b.prompt}


@dataclass(frozen=True)
class Prompt:
    """A prompt among others, not yet read by a model."""

    prompts: tuple[str, ...]
    index: int


def text(*prompts: str) -> list[Prompt]:
    """Prompts to explain a picture's similarity with, for models such as CLIP and SigLIP.

    A list of targets, one for each prompt; CLIP's probabilities are shares among them.

    Raises:
        TargetError: no prompt, or one that is no text.
    """
    if not prompts or not all(isinstance(p, str) and p.strip() for p in prompts):
        raise TargetError('text() needs prompts, as in text("a photo of a cat", "a dog").')
    return [Prompt(prompts, index) for index in range(len(prompts))]


class Targets:
    """K targets for each of B images.

    Args:
        rows: B lists of K targets each.
    """

    def __init__(self, rows: Sequence[Sequence[Target]]) -> None:
        self.rows: tuple[tuple[Target, ...], ...] = tuple(tuple(row) for row in rows)
        if not self.rows or not self.rows[0]:
            raise TargetError("there is nothing to explain: give at least one target.")
        counts = sorted({len(row) for row in self.rows})
        if len(counts) > 1:
            raise TargetError(
                f"the images have different numbers of targets ({', '.join(map(str, counts))}); "
                "give every image of a batch as many, or explain them one by one."
            )

    @property
    def count(self) -> int:
        """K, the number of targets of each image."""
        return len(self.rows[0])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, columns: slice) -> Targets:
        """The targets in a range of columns, for every image."""
        return Targets([row[columns] for row in self.rows])

    def scores(
        self, logits: Float[Tensor, "batch targets classes"]
    ) -> Float[Tensor, "batch targets"]:
        """y of target (b, k) on the logits [b, k]."""
        terms = [[target.terms() for target in row] for row in self.rows]
        most = max(len(found or ()) for row in terms for found in row)
        if not most or any(found is None for row in terms for found in row):
            return self._each(logits, "score")
        ids = [[_padded(list(found or ()), most) for found in row] for row in terms]
        weights = [[_padded(list((found or {}).values()), most) for found in row] for row in terms]
        at = torch.tensor(ids, device=logits.device, dtype=torch.long)
        return (
            logits.gather(-1, at) * torch.tensor(weights, dtype=logits.dtype, device=logits.device)
        ).sum(-1)

    def probabilities(
        self, logits: Float[Tensor, "batch classes"]
    ) -> Float[Tensor, "batch targets"]:
        """Softmax probability of each target's class; NaN where a target is no class."""
        if all(isinstance(target, ClassTarget) for row in self.rows for target in row):
            ids = [[t.id for t in row if isinstance(t, ClassTarget)] for row in self.rows]
            return logits.softmax(-1).gather(-1, torch.tensor(ids, device=logits.device))
        return self._each(logits[:, None].expand(-1, self.count, -1), "probability")

    def _each(self, logits: Tensor, what: str) -> Tensor:
        return torch.stack(
            [
                torch.stack([getattr(t, what)(logits[b, k]) for k, t in enumerate(row)])
                for b, row in enumerate(self.rows)
            ]
        )

    def labels(self, labels: Labels) -> list[list[str]]:
        """Names for people, (B, K)."""
        return [[target.label(labels) for target in row] for row in self.rows]

    def sharpen(self, kind: str, logits: Float[Tensor, "batch classes"]) -> Targets:
        """Class targets made into sharper ones (method.md, "Targets"); others stay as they are.

        Args:
            kind: "logit" (unchanged), "log_prob", "rivals(m, w)": minus w (1) times the mean of
                the m (5) strongest other logits, which a single output does not have and is then
                unchanged, or "others": minus the mean of the image's other class targets.
        """
        parsed = parse_kind(kind)
        if parsed == "logit":
            return self
        count = parsed.count if isinstance(parsed, Rivals) else 0
        leading = logits.detach().topk(min(count + 1, logits.shape[-1])).indices.tolist()
        rows = []
        for row, strongest in zip(self.rows, leading, strict=True):
            plain = [t.id for t in row if type(t) is ClassTarget]
            if parsed == "others" and len(set(plain)) < 2:
                raise TargetError(
                    'target="others" sets each class against the others asked for; '
                    "give at least two classes."
                )
            rows.append(
                [
                    _sharpened(t, parsed, strongest, plain) if type(t) is ClassTarget else t
                    for t in row
                ]
            )
        return Targets(rows)


@dataclass(frozen=True)
class Rivals:
    """The `target` option "rivals(m, w)": m strongest other logits, their mean weighted by w."""

    count: int = 5
    weight: float = 1.0


def parse_kind(kind: str) -> str | Rivals:
    """Check a `target` option: "logit", "log_prob", "others" or "rivals(m, w)", m and w optional.

    Raises:
        TargetError: if it is none of these.
    """
    if kind in ("logit", "log_prob", "others"):
        return kind
    match = re.fullmatch(r"rivals(?:\((\d+)(?:,\s*(\d*\.?\d+))?\))?", str(kind))
    if match:
        found = Rivals(int(match[1] or 5), float(match[2] or 1))
        if found.count >= 1 and found.weight > 0:
            return found
    raise TargetError(
        f"unknown target kind {kind!r}; use 'logit', 'log_prob', 'rivals(m)', 'rivals(m, w)' or "
        "'others'."
    )


def _sharpened(
    target: ClassTarget, kind: str | Rivals, strongest: list[int], plain: list[int]
) -> Target:
    if kind == "log_prob":
        return LogProb(target.id)
    if kind == "others":
        return Against(target.id, tuple(dict.fromkeys(i for i in plain if i != target.id)))
    assert isinstance(kind, Rivals)
    rivals = tuple(i for i in strongest if i != target.id)[: kind.count]
    return Against(target.id, rivals, kind.weight) if rivals else target


def _padded(items: list[Any], length: int) -> list[Any]:
    return items + [0] * (length - len(items))


def resolve(
    targets: Any,
    logits: Float[Tensor, "batch classes"],
    labels: Labels,
    *,
    top_k: int = 1,
    prompts: Callable[[tuple[str, ...]], PromptBatch] | None = None,
) -> Targets:
    """Turn what a user asks for into `Targets`.

    Args:
        targets: None (the `top_k` predicted classes of each image), "all" classes, one id, name,
            `contrast(a, b)`, `log_prob(c)`, `Target` or function of the output; a list of
            these for all images; or one list per image. Integer tensors and arrays count as lists.
        logits: the model's output, (B, C).
        prompts: reads text, where the model compares pictures with it; the targets are then
            `text(…)` or functions of the picture's embedding.

    Raises:
        TargetError: unknown names (with the nearest ones), ids out of range, ragged lists.
    """
    batch = len(logits)
    if prompts is not None and targets is None:
        raise TargetError(
            "this model compares pictures with text and has no classes of its own; give prompts, "
            'as in targets=text("a photo of a cat", "a photo of a dog") (--text on the command '
            "line)."
        )
    if targets is None:
        classes = logits.shape[-1]
        if type(top_k) is not int or not 1 <= top_k <= classes:
            raise TargetError(
                f"top_k is {top_k!r}; this model has {classes} classes, use 1 to {classes}."
            )
        return Targets(
            [[ClassTarget(i) for i in row] for row in logits.topk(top_k, dim=-1).indices.tolist()]
        )
    if isinstance(targets, str) and targets == "all" and prompts is None:
        return Targets([[ClassTarget(index) for index in range(logits.shape[-1])]] * batch)
    resolve_one = partial(_resolve_one, labels=labels, read=cache(prompts) if prompts else None)
    rows = per_image(targets, batch)
    if rows is not None:
        return Targets([[resolve_one(item) for item in row] for row in rows])
    if isinstance(targets, (Tensor, np.ndarray)):
        targets = _listed(targets)
    if not _is_list(targets):
        targets = [targets]
    if any(_is_list(item) for item in targets):
        raise TargetError(
            "the targets mix lists and single targets; give one list for all images, or one list "
            "per image."
        )
    return Targets([[resolve_one(item) for item in targets]] * batch)


def per_image(targets: Any, count: int) -> list[Any] | None:
    """One list of targets for each of `count` images where that is what was given, else None.

    Raises:
        TargetError: if the lists are more or fewer than the images.
    """
    if isinstance(targets, (Tensor, np.ndarray)):
        targets = _listed(targets)
    if not _is_list(targets) or not len(targets) or not all(_is_list(row) for row in targets):
        return None
    if len(targets) != count:
        raise TargetError(
            f"{len(targets)} lists of targets were given for {count} images; give one per image, "
            "or one flat list for all."
        )
    return list(targets)


def _listed(targets: Any) -> Any:
    try:
        return targets.tolist()
    except (RuntimeError, NotImplementedError) as error:
        raise TargetError(f"the tensor of targets cannot be read: {error}.") from None


def _checked(target: Target, labels: Labels) -> Target:
    """A target made by hand, if the model has the classes that it speaks of.

    Raises:
        TargetError: one that is no id within range, or other fields that are no numbers.
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


def _resolve_one(
    item: Any, labels: Labels, read: Callable[[tuple[str, ...]], PromptBatch] | None
) -> Target:
    if isinstance(item, Prompt):
        if read is None:
            raise TargetError(
                "text(…) is for models that compare pictures with text, such as CLIP; this one has "
                "classes, so give their names or ids."
            )
        return Similarity(item.prompts[item.index], item.index, read(item.prompts))
    if isinstance(item, Pending) and any(isinstance(c, Prompt) for c in item.classes):
        found = [_resolve_one(c, labels, read) for c in item.classes]
        prompts = [target for target in found if isinstance(target, Similarity)]
        if item.kind is not Contrast or len(prompts) != 2:
            raise TargetError("a prompt is explained by itself, or in contrast(…) with a prompt.")
        return SimilarityContrast(*prompts)
    if read is not None and not callable(item) and not isinstance(item, Target):
        raise TargetError(
            f"{item!r} is no target of a model that compares pictures with text; give prompts, as "
            f'in targets=text("{item}").'
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
