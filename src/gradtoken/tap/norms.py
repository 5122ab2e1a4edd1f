"""The normalisations of a pre-norm block, found by watching it run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from gradtoken.errors import NotSupportedError
from gradtoken.tap.calls import block_tokens


class Norms:
    """Watches what enters and leaves the normalisations of one block, in a `with` block.

    A pre-norm block normalises the tokens that enter it, adds its attention, normalises those and
    adds its MLP.

    Args:
        block: to watch.
        change: made of the tokens normalised before attention, which go on as it returns them.
        apart: what is seen is kept apart from what the block may write into.
    """

    def __init__(
        self,
        block: nn.Module,
        change: Callable[[Tensor], Tensor] | None = None,
        *,
        apart: bool = False,
    ) -> None:
        self._block = block
        self._change = change
        self._apart = apart
        self._hooks = ExitStack()
        self._entering: list[Tensor] = []
        self._seen: list[_Norm] = []

    def __enter__(self) -> Norms:
        thread = threading.get_ident()

        def enter(
            _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
        ) -> None:
            # torch can call it without keywords in a thread that runs the model while it is removed
            if threading.get_ident() == thread:
                self._entering.append(block_tokens(args, kwargs or {})[0])

        def leave(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            if threading.get_ident() != thread:
                return None
            if self._change is not None and not self._seen:
                output = self._change(output)
            given = args[0].clone() if self._apart else args[0]
            self._seen.append(_Norm(given, output, args[0] is self._entering[0]))
            return output.clone() if self._apart else output

        norms = [part for part in self._block.children() if "Norm" in type(part).__name__]
        with ExitStack() as stack:
            pre = self._block.register_forward_pre_hook(enter, with_kwargs=True)
            stack.callback(pre.remove)
            for part in norms:
                stack.callback(part.register_forward_hook(leave).remove)
            self._hooks = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._hooks.close()

    def first(self) -> Tensor:
        """The block's tokens (B, N, D) as normalised before its attention.

        Raises:
            MethodError: if the block is not pre-norm.
        """
        if not self._seen or not self._seen[0].entering:
            raise NotSupportedError(_not_pre_norm(self._block))
        return self._seen[0].made

    def middle(self) -> Tensor:
        """The tokens (B, N, D) between the block's attention and its MLP.

        Raises:
            MethodError: if the block is not pre-norm, or has its attention and MLP side by side.
        """
        self.first()
        if len(self._seen) != 2:
            raise NotSupportedError(_not_pre_norm(self._block))
        return self._seen[1].given


@dataclass(frozen=True)
class _Norm:
    """What one normalisation was given and made, and whether that were the block's own tokens."""

    given: Tensor
    made: Tensor
    entering: bool


def _not_pre_norm(block: nn.Module) -> str:
    return (
        f"needs blocks that normalise before attention and before the MLP, which "
        f"{type(block).__name__} does not; use gradtoken."
    )
