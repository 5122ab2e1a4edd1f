"""Running a model up to the tokens that enter its first block."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradtoken.errors import ModelError, first_line
from gradtoken.models.model import Model
from gradtoken.models.reading.gradients import gradients_at, random_projection
from gradtoken.models.reading.observe import FAILURES
from gradtoken.tap.attention_call import AttentionCall
from gradtoken.tap.attention_tap import AttentionTap
from gradtoken.tap.block_io import block_tokens


class _Reached(Exception):  # noqa: N818
    """Ends a forward that has reached the first block."""


@dataclass(frozen=True)
class Embedded:
    """Tokens that enter the first block, with a graph from the pixels to them.

    Args:
        pixels: the input, a leaf.
        tokens: of its one image.
        local: whether the tokens depend on few pixels each, as they do before attention.
    """

    pixels: Float[Tensor, "1 channels height width"]
    tokens: Float[Tensor, "1 tokens dim"]
    local: bool


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

        def stop(entering: Tensor) -> None:
            if threading.get_ident() == thread:
                tokens.append(entering)
                raise _Reached

        with ExitStack() as stack:
            enter = _entering(stop)
            hook = anatomy.blocks[0].register_forward_pre_hook(enter, with_kwargs=True)
            stack.callback(hook.remove)
            tap = stack.enter_context(_SelfAttention())
            try:
                self._model.run(images)
            except (_Reached, *FAILURES) as error:
                if not tokens:
                    raise ModelError(
                        f"{self._model.spec} cannot run on a batch of shape {tuple(images.shape)}: "
                        f"{first_line(error)}"
                    ) from error
        self._values = tap.values
        if not tokens:
            raise ModelError(f"{self._model.spec} did not run its first block.")
        return tokens[0]

    def traced(self, image: Float[Tensor, "1 channels height width"]) -> Embedded:
        """The tokens of one image, with their graph.

        They are local unless they have attended to one another before. Attention of another
        backbone, on which they do not depend, does not count.
        """
        with torch.enable_grad():
            pixels = image.detach().clone().requires_grad_()
            tokens = self(pixels)
            values = [value for value in self._values if value.requires_grad]
            attended = any(
                grad is not None for grad in gradients_at(random_projection(tokens), values)
            )
        return Embedded(pixels, tokens, not attended)


def _entering(stop: Callable[[Tensor], None]) -> Callable[..., None]:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        stop(block_tokens(args, kwargs or {})[0])

    return hook


class _SelfAttention(AttentionTap):
    """Lets every token attend to itself alone, where there is a value for each query."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[Tensor] = []

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        self.values.append(call.value)
        return call.value if call.value.shape == call.query.shape else run()
