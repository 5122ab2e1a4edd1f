"""Recording the attention calls and linear layers of a forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.tap.attention_call import TAIL, AttentionCall
from gradtoken.tap.attention_tap import AttentionTap
from gradtoken.tap.in_place import written_to
from gradtoken.tap.linear_cache import LinearCall
from gradtoken.tap.patch_attention import PatchAttention
from gradtoken.tap.positions import Positions


class Recorder(AttentionTap):
    """Keeps references to the inputs and outputs of attention calls, from the first block on.

    `place` says where the forward is: the index of a block, `TAIL` after the last one, or None
    where attention is not recorded (earlier stages of a hierarchical model).

    Args:
        rows: positions of readout tokens; the blocks' linear layers are recorded at these rows.
        queries: whether the blocks' queries are kept too.
        copies: whether the model gets copies of what is kept, since it may write in place
            (`gradtoken.tap.in_place`).
        patch_attention: is given every block's attention.
    """

    def __init__(
        self,
        rows: tuple[int, ...] = (),
        *,
        queries: bool = True,
        copies: bool = False,
        patch_attention: PatchAttention | None = None,
    ) -> None:
        super().__init__()
        self.copies = copies
        self.written = False
        """Whether the model wrote in place."""
        self.place: int | None = None
        self.block: int | None = None
        """The block at work, also before the first one that is recorded; None outside of them."""
        self.tokens: int | None = None
        """How many tokens entered the current block."""
        self.calls: list[AttentionCall] = []
        self.linears: list[LinearCall] = []
        self._rows = Positions(rows)
        self._queries = queries
        self._patch_attention = patch_attention

    def intercept(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self.written = self.written or written_to(func, args, kwargs) is not None
        return super().intercept(func, args, kwargs)

    def writable(self, kept: Tensor) -> Tensor:
        """A tensor that the model may write into where `kept` is recorded."""
        return kept.clone() if self.copies else kept

    def linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        output = F.linear(input, weight, bias)
        inside = self.place is not None and self.place != TAIL
        if inside and self._rows and input.ndim == 3 and input.shape[1] == self.tokens:
            rows = [self._rows.of(tokens).detach() for tokens in (input, output)]
            self.linears.append(LinearCall(weight, *rows))
        return output

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        if self._patch_attention is not None and self.block is not None:
            self._patch_attention.add(call, self.block)
        output = run()
        if self.place is not None:
            kept = output if output.requires_grad else None
            key, value = self.writable(call.key), self.writable(call.value)
            call = replace(call, key=key, value=value, output=kept, place=self.place)
            if not self._queries and self.place != TAIL:
                call = call.without_queries()
            else:
                call = replace(call, query=self.writable(call.query))
            self.calls.append(call)
            return self.writable(output)
        return output


class EagerAttention(Recorder):
    """Computes eager attention, so that its weights are nodes of the graph.

    Args:
        leaves: whether the weights become leaves, so that gradients end there.
        copies: as for `Recorder`.
    """

    def __init__(self, *, leaves: bool = False, copies: bool = False) -> None:
        super().__init__(copies=copies)
        self._leaves = leaves
        self.weights: list[Float[Tensor, "batch heads queries tokens"]] = []
        """One for each of `calls`."""

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        if self.place is None:
            return run()
        weights = self.node(call.rows(slice(None)))
        output = weights.to(call.value.dtype) @ call.value
        self.weights.append(weights)
        self.calls.append(replace(call, output=output, place=self.place))
        return self.writable(output)

    def node(self, weights: Tensor) -> Tensor:
        """The node of the graph that stands for a call's weights, and that values are mixed by."""
        return weights.detach().requires_grad_() if self._leaves else weights
