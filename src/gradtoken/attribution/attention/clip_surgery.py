"""CLIP Surgery: patches compared with prompts after attention from values to values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.attribution.base import NO_GRADIENT, Method
from gradtoken.attribution.options import check_whole
from gradtoken.attribution.prompts import by_prompt, require_prompts
from gradtoken.attribution.widened import widened_if_narrow
from gradtoken.errors import MethodError, NotSupportedError
from gradtoken.models.reading.observe import with_autograd
from gradtoken.tap.anatomy import run_with_arguments
from gradtoken.tap.attention_call import AttentionCall
from gradtoken.tap.attention_tap import AttentionTap
from gradtoken.tap.hooks import block_hooks
from gradtoken.tap.norms import Norms
from gradtoken.tap.recorder import Recorder
from gradtoken.targets import Targets
from gradtoken.targets.prompts import PromptBatch
from gradtoken.trace.continued import logits_from
from gradtoken.trace.trace import Trace

_CHUNK = 64
"""Tokens that go through the model's tail at once."""

_SHARPNESS = 2.0
"""What cosines are multiplied with before the softmax that weights prompts."""


@dataclass(frozen=True, kw_only=True)
class CLIPSurgery(Method):
    """R_ik = w_k cos(f_i, t_k) - mean over prompts k' of w_k' cos(f_i, t_k').

    f_i is the model's embedding of patch i, read as it reads its class token, from a path of tokens
    beside the model's own: the tokens that enter the first of the last blocks, plus what the
    attention of each of these blocks adds where its weights are softmax(v v^T / sqrt(d)), v being
    the values in the model's own forward. MLPs add nothing. t_k are the embeddings of all prompts
    of the same `text(…)`, and w is softmax(2 cos(f, t)) over them for the image's embedding f, with
    mean 1. A single prompt is set against the empty one instead: cos(f_i, t) - cos(f_i, t_empty).
    No gradient is taken.

    Args:
        blocks: how many of the last blocks the path goes through; all, if the model has fewer.
        redundant: whether what the prompts share is subtracted; without it R_ik = cos(f_i, t_k).
    """

    name: ClassVar[str] = "clip-surgery"
    summary: ClassVar[str] = "patches' own similarity with a prompt, less what prompts share"
    source: ClassVar[str] = "Li et al., CLIP Surgery, 2023"
    no_libra: ClassVar[str] = NO_GRADIENT
    of_prompts: ClassVar[bool] = True

    blocks: int = 6
    redundant: bool = True

    def __post_init__(self) -> None:
        check_whole(self, "blocks")
        if not isinstance(self.redundant, bool):
            raise MethodError(
                f"clip-surgery's redundant is {self.redundant!r}; it must be True or False."
            )

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        require_prompts(trace, targets)
        _check_class_token(trace)
        with with_autograd(trace.model), widened_if_narrow(trace.model), torch.no_grad():
            patches = self._embedded(trace, self._path(trace))
            whole = F.normalize(trace.logits.to(patches), dim=-1)
            return by_prompt(targets, lambda batch: self._maps(trace, batch, patches, whole))

    def _path(self, trace: Trace) -> Float[Tensor, "batch patches dim"]:
        """The patches' tokens at the end of the path beside the model's own."""
        model = trace.model
        anatomy, copies = model.anatomy, model.writes_in_place
        watch = block_hooks(anatomy, Recorder(copies=copies), graph="tail", every_block=True)
        with torch.no_grad(), watch as record:
            model.run(trace.images)
        first = max(trace.depth - self.blocks, 0)
        tokens = record.inputs[first]
        for index in range(first, trace.depth):
            entering, block = record.inputs[index], anatomy.blocks[index]
            with Norms(block, copies=copies) as norms, _ValueAttention():
                run_with_arguments(block, model.writable(entering), record.arguments[index])
            tokens = tokens + norms.middle() - entering
        return trace.patch_grid.pick(tokens, 1)

    def _embedded(
        self, trace: Trace, tokens: Float[Tensor, "batch patches dim"]
    ) -> Float[Tensor, "batch patches embedding"]:
        """Unit embeddings of patches, each read in the place of the class token."""
        length, embedded = trace.patch_grid.tokens, []
        for b, own in enumerate(tokens):
            image = trace.images[b : b + 1]
            parts = [
                logits_from(trace, image, trace.depth, part[:, None].expand(-1, length, -1))
                for part in own.split(_CHUNK)
            ]
            embedded.append(torch.cat(parts))
        return F.normalize(torch.stack(embedded), dim=-1)

    def _maps(
        self,
        trace: Trace,
        batch: PromptBatch,
        patches: Float[Tensor, "batch patches embedding"],
        whole: Float[Tensor, "batch embedding"],
    ) -> Float[Tensor, "batch prompts patches"]:
        prompts = batch.embeddings.to(patches)
        cosines = patches @ prompts.T
        if self.redundant and len(prompts) == 1:
            empty = trace.model.read_text(("",)).embeddings.to(patches)
            cosines = cosines - patches @ empty.T
        elif self.redundant:
            shares = (_SHARPNESS * whole @ prompts.T).softmax(-1) * len(prompts)
            cosines = cosines * shares[:, None]
            cosines = cosines - cosines.mean(-1, keepdim=True)
        return cosines.transpose(1, 2)


class _ValueAttention(AttentionTap):
    """Attention whose queries and keys are the values."""

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        if call.mask is not None:
            raise NotSupportedError(
                "lets values attend to values, and the model's attention has position biases or "
                "masks, which belong to its queries and keys; use gradtoken."
            )
        weights = replace(call, query=call.value, key=call.value).rows(slice(None))
        return weights.to(call.value.dtype) @ call.value


def _check_class_token(trace: Trace) -> None:
    """Check that the embedding is read from one class token.

    Raises:
        NotSupportedError: if it is not, or not all tokens attend to all.
    """
    trace.global_calls()
    model = trace.model
    if len(model.layout.rows) != 1 or model.layout.pool is not None or trace.tail_calls:
        raise NotSupportedError(
            f"reads patches as the class token is read, which {model.spec} does not have "
            f"({model.anatomy.readout}); use gradtoken."
        )
