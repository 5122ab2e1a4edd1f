"""The normalisations of a pre-norm block, observed while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from gradtoken.errors import NotSupportedError
from gradtoken.tap.block_io import block_tokens


class Norms:
    """Records the inputs and outputs of the normalisations of one block, in a `with` block.

    A pre-norm block normalises the tokens that enter it, adds its attention, normalises those and
    adds its MLP.

    Args:
        block: whose normalisations are recorded.
        change: replaces the tokens normalised before attention.
        copies: whether copies are recorded, since the block may write in place.
    """

    def __init__(
        self,
        block: nn.Module,
        change: Callable[[Tensor], Tensor] | None = None,
        *,
        copies: bool = False,
    ) -> None:
        self._block = block
        self._change = change
        self._copies = copies
        self._hooks = ExitStack()
        self._entering: list[Tensor] = []
        self._records: list[_Norm] = []

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
            if self._change is not None and not self._records:
                output = self._change(output)
            tokens = args[0].clone() if self._copies else args[0]
            self._records.append(_Norm(tokens, output, args[0] is self._entering[0]))
            return output.clone() if self._copies else output

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
        if not self._records or not self._records[0].entering:
            raise NotSupportedError(_not_pre_norm(self._block))
        return self._records[0].output

    def middle(self) -> Tensor:
        """The tokens (B, N, D) between the block's attention and its MLP.

        Raises:
            MethodError: if the block is not pre-norm, or has its attention and MLP side by side.
        """
        self.first()
        if len(self._records) != 2:
            raise NotSupportedError(_not_pre_norm(self._block))
        return self._records[1].input


@dataclass(frozen=True)
class _Norm:
    """Input and output of one normalisation, and whether the input is the block's own."""

    input: Tensor
    output: Tensor
    entering: bool


def _not_pre_norm(block: nn.Module) -> str:
    return (
        f"needs blocks that normalise before attention and before the MLP, which "
        f"{type(block).__name__} does not; use gradtoken."
    )
