"""Running a model up to the tokens that enter its first block."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from gradtoken.errors import ModelError
from gradtoken.models.calls import block_tokens
from gradtoken.models.model import Model
from gradtoken.models.observe import FAILURES, projected, reaches
from gradtoken.tap import AttentionCall, AttentionTap


class _Reached(Exception):
    """Ends a forward that has come as far as it is needed."""


class Embedder:
    """Tokens (B, T, D) entering the first block.

    The forward ends there. Attention before it is cut where it can be: each token attends to itself
    alone, so that it depends on its own pixels most.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._values: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        anatomy, tokens = self._model.anatomy, []
        thread = threading.get_ident()

        def stop(found: Tensor) -> None:
            if threading.get_ident() == thread:
                tokens.append(found)
                raise _Reached

        with ExitStack() as stack:
            enter = _entering(stop)
            hook = anatomy.blocks[0].register_forward_pre_hook(enter, with_kwargs=True)
            stack.callback(hook.remove)
            tap = stack.enter_context(_Apart())
            try:
                self._model.run(images)
            except (_Reached, *FAILURES) as error:
                if not tokens:
                    raise ModelError(
                        f"{self._model.spec} cannot run on a batch of shape {tuple(images.shape)}: "
                        f"{(str(error).splitlines() or [type(error).__name__])[0]}"
                    ) from error
        self._values = tap.values
        if not tokens:
            raise ModelError(f"{self._model.spec} did not run its first block.")
        return tokens[0]

    def local(self, images: Tensor) -> bool:
        """Whether the tokens have not attended to one another before.

        Attention of another backbone, on which they do not depend, does not count.
        """
        with torch.enable_grad():
            tokens = self(images.detach().clone().requires_grad_())
            values = [value for value in self._values if value.requires_grad]
            return all(grad is None for grad in reaches(projected(tokens), values))


def _entering(stop: Callable[[Tensor], None]) -> Callable[..., None]:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        stop(block_tokens(args, kwargs or {})[0])

    return hook


class _Apart(AttentionTap):
    """Lets every token attend to itself alone, where there is a value for each query."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[Tensor] = []

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        self.values.append(call.value)
        return call.value if call.value.shape == call.query.shape else run()
