"""The base class of methods: a small class with options, called on a trace and targets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from gradtoken.errors import MethodError, NotSupportedError
from gradtoken.targets import Targets
from gradtoken.targets.activation import Activation
from gradtoken.trace.trace import Trace

NO_GRADIENT = "uses no gradient, which LibraGrad would correct"
"""Why a method without a gradient has no option `libra`."""
OWN_RULES = "propagates relevance by rules of its own, not the gradients that LibraGrad corrects"
"""Why layer-wise relevance propagation has no option `libra`."""


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """An attribution method; its fields are its options.

    Subclass it as a frozen dataclass and declare it in the entry-point group `gradtoken.methods` of
    your package; `explain(..., method=name)` then finds it. A method raises `NotSupportedError` for
    a model or target that it does not support.
    """

    name: ClassVar[str]
    """The name for `method=`."""
    summary: ClassVar[str]
    """One line for lists of methods."""
    source: ClassVar[str]
    """The publication."""
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    """Named sets of options, for `preset=`."""
    class_aware: ClassVar[bool] = True
    """Whether maps depend on the target."""
    of_prompts: ClassVar[bool] = False
    """Whether it explains text prompts alone, of models that compare images with text."""
    slow: ClassVar[bool] = False
    """Whether it runs the model about a hundred times per image or more."""
    trial: ClassVar[dict[str, Any]] = {}
    """Options with which it runs quickly, for `check`."""
    no_libra: ClassVar[str] = "does not offer the gradients of LibraGrad"
    """Why it has no option `libra`, if it has none."""

    @abstractmethod
    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        """Relevance of each spatial token for each target: (B, K, N), raw and signed."""

    def first_block(self, depth: int) -> int:
        """Index of the first block whose attention or stream the method uses, of `depth` blocks.

        The attention of earlier blocks is not kept.
        """
        return 0

    def needs_queries(self) -> bool:
        """Whether the method uses the attention between all tokens in the recorded forward."""
        return True

    def affinity_blocks(self, depth: int) -> Sequence[int]:
        """The blocks, of `depth`, whose attention between patches the method averages."""
        return ()

    def sets_against_others(self) -> bool:
        """Whether a target's map depends on the other targets of the same call."""
        return False

    def options(self) -> dict[str, Any]:
        """The options in force, as plain data."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def options_for(self, activation: Activation) -> dict[str, Any]:
        """The options in force on a model of an activation, for manifests."""
        return self.options()


def relevance_of(
    method: Method, trace: Trace, targets: Targets
) -> Float[Tensor, "batch targets patches"]:
    """Call a method, and put its name into the error if it does not support the model or target.

    Raises:
        MethodError: if the model or the targets are not supported.
    """
    try:
        return method(trace, targets)
    except NotSupportedError as error:
        raise MethodError(f"{method.name} {error.reason}") from error
