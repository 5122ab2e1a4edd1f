"""The maps of a method for one image."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution import Method
from gradtoken.attribution.base import relevance_of
from gradtoken.bench.cases import Case
from gradtoken.errors import MethodError
from gradtoken.targets import ClassTarget, resolve
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, eq=False)
class Maps:
    """A method's maps of one image.

    Args:
        case: the image and its K classes.
        method: the method, to explain changed images too.
        tokens: (K, rows, columns), as `explain` gives them for the K classes.
        absent: the map of a class that is no target, the same class for each method; None where
            every class of the model is a target, or it was not computed.
    """

    case: Case
    method: Method
    tokens: Float[Tensor, "targets rows columns"]
    absent: Float[Tensor, "rows columns"] | None

    @classmethod
    def compute(cls, case: Case, method: Method) -> Maps:
        """Run a method on the classes of an image and on an absent class.

        Raises:
            MethodError: if it does not support the model, or gives NaN or infinite relevance.
        """
        absent = _absent_class(case)
        if absent is None:
            return cls.of_targets(case, method)
        maps = maps_of(method, case.trace, [*case.classes, absent])
        tokens = maps[:-1]
        if method.sets_against_others():
            tokens = maps_of(method, case.trace, case.classes)
        return cls(case, method, tokens, maps[-1])

    @classmethod
    def of_targets(cls, case: Case, method: Method) -> Maps:
        """Run a method on the classes of an image alone.

        Raises:
            MethodError: as for `compute`.
        """
        return cls(case, method, maps_of(method, case.trace, case.classes), None)

    @property
    def flat(self) -> Float[Tensor, "targets tokens"]:
        return self.tokens.flatten(1)

    @property
    def pixels(self) -> Float[Tensor, "targets height width"]:
        """On the pixels of the model's input."""
        return self.case.trace.patch_grid.enlarge(self.tokens)


def maps_of(
    method: Method, trace: Trace, classes: Sequence[int]
) -> Float[Tensor, "targets rows columns"]:
    """A method's maps of a recorded image, on the CPU.

    Raises:
        MethodError: if it does not support the model, or gives NaN or infinite relevance.
    """
    targets = resolve(
        [[ClassTarget(c) for c in classes]],
        trace.logits,
        trace.model.labels,
        activation=trace.model.activation,
    )
    relevance = relevance_of(method, trace, targets)[0].detach().float().cpu()
    if not bool(torch.isfinite(relevance).all()):
        raise MethodError(f"{method.name} gave NaN or infinite relevance for {trace.model.spec}.")
    return relevance.unflatten(-1, trace.grid)


def _absent_class(case: Case) -> int | None:
    """A class that is no target, drawn by the image's id; None if there is none."""
    total = case.trace.logits.shape[1]
    absent = [c for c in range(total) if c not in case.classes]
    if not absent:
        return None
    return absent[zlib.crc32(case.sample.id.encode()) % len(absent)]
