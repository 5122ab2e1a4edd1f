"""What every method is: a small class with options, called on a trace and targets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from gradtoken.errors import MethodError, NotSupportedError
from gradtoken.targets import Targets
from gradtoken.targets.activation import Activation
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """An attribution method; its fields are its options.

    Subclass it as a frozen dataclass, name it in the entry-point group `gradtoken.methods`, and
    `explain(..., method=name)` finds it.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    """Named sets of options, for `preset=`."""
    class_aware: ClassVar[bool] = True
    """Whether maps depend on the target."""

    slow: ClassVar[bool] = False
    """Whether it runs the model some hundred times for a picture."""
    trial: ClassVar[dict[str, Any]] = {}
    """Options with which it is quick, to find out whether it works on a model."""

    @abstractmethod
    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        """Relevance of each spatial token for each target: (B, K, N), raw and signed."""

    def first_block(self, depth: int) -> int:
        """The first of a model's blocks whose attention or stream the method looks at.

        What attention used in earlier blocks is not kept, and not followed.
        """
        return 0

    def needs_queries(self) -> bool:
        """Whether the method looks at attention between all tokens, in the forward explained."""
        return True

    def sets_against_others(self) -> bool:
        """Whether a target's map depends on which other targets are asked for beside it."""
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
    """What a method makes of a trace; its name is in the error if it cannot.

    Raises:
        MethodError: the model or the targets are not supported.
    """
    try:
        return method(trace, targets)
    except NotSupportedError as error:
        raise MethodError(f"{method.name} {error.reason}") from error
