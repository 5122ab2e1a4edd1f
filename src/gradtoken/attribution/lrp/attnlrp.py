"""AttnLRP: layer-wise relevance with rules of its own for attention, by the `lxt` package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.attribution.base import OWN_RULES, Method
from gradtoken.attribution.lrp.gamma import gamma_linear
from gradtoken.attribution.lrp.propagation import token_relevance
from gradtoken.attribution.lrp.rules import (
    ADD,
    MULTIPLY,
    MULTIPLY_MATRICES,
    PASS_ON,
    pass_on,
    varies,
)
from gradtoken.attribution.options import check_number
from gradtoken.errors import MethodError
from gradtoken.tap.attention_call import AttentionCall
from gradtoken.tap.operations import REARRANGE, NoRule, items_of
from gradtoken.tap.recorder import EagerAttention
from gradtoken.targets import Targets
from gradtoken.trace.trace import Trace

_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)


@dataclass(frozen=True, kw_only=True)
class AttnLRP(Method):
    """The relevance R, summed over channels, that reaches each token entering the first block.

    From R = z_c at the logit of a class (dy/dz * z for other targets), by lxt's rules: epsilon in
    linear layers and sums; products of two variables by epsilon, half to each; softmax by its
    Taylor expansion, R_i = x_i (R_i - s_i sum_j R_j); normalisation and activations pass it on.
    Biases take their share.

    Args:
        gamma: of the gamma rule in every linear layer (`gradtoken.attribution.lrp.gamma`), which
            favours contributions of the output's own sign; 0 is the epsilon rule. The authors
            advise small values for Vision Transformers, such as 0.05, and to try several.
    """

    name: ClassVar[str] = "attnlrp"
    summary: ClassVar[str] = "layer-wise relevance through attention down to the first tokens"
    source: ClassVar[str] = "Achtibat et al., ICML 2024, eqs. 8 and 9, props. 3.1 to 3.4"
    no_libra: ClassVar[str] = OWN_RULES

    gamma: float = 0.0

    def __post_init__(self) -> None:
        check_number(self, "gamma")

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        try:
            rules = import_module("lxt.explicit.functional")
        except ImportError as error:
            raise MethodError(
                f'attnlrp needs the lxt package ({error}); pip install "gradtoken[lxt]".'
            ) from None
        model = trace.model
        tap = _Rules(rules, model.spec, self.gamma, copies=model.writes_in_place)
        return trace.patch_grid.pick(token_relevance(trace, targets, tap))


class _Rules(EagerAttention):
    """A mode under which the backward of a forward propagates relevance by lxt's rules."""

    def __init__(self, rules: Any, spec: str, gamma: float, *, copies: bool) -> None:
        super().__init__(copies=copies)
        self._rules = rules
        self._spec = spec
        self._gamma = gamma

    def intercept(  # noqa: PLR0911
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if func is F.multi_head_attention_forward:
            with self:
                return self.multi_head(args, kwargs)
        plain = self.place is None or func is F.scaled_dot_product_attention
        if plain or not any(map(varies, items_of(args, kwargs))):
            return super().intercept(func, args, kwargs)
        if func is F.linear:
            return self.writable(self._linear(*args, **kwargs))
        if func in ADD and not kwargs:
            return self._pair(torch.add, self._rules.add2, *args)
        if func in MULTIPLY:
            return self._pair(torch.mul, self._rules.mul2, *args)
        if func in MULTIPLY_MATRICES:
            return self.writable(self._rules.matmul(*args))
        if func in _SOFTMAX:
            return self._softmax(*args, **kwargs)
        if func in PASS_ON:
            return pass_on(func, *args, **kwargs)
        name = getattr(func, "__name__", str(func))
        output = func(*args, **kwargs)
        if name in REARRANGE or not isinstance(output, Tensor):
            return output
        return NoRule.apply(
            output,
            MethodError(f"attnlrp has no rule for {name}, which {self._spec} uses; use gradtoken."),
        )

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        if self.place is None:
            return run()
        with self:
            scores = (call.query @ call.key.transpose(-2, -1)) * call.scale
            if call.mask is not None:
                bias = call.bias(slice(None), scores.detach()).detach()
                scores = pass_on(torch.add, scores, bias)
            output: Tensor = scores.softmax(-1) @ call.value
        return output

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
        weight, bias = weight.detach(), None if bias is None else bias.detach()
        if self._gamma:
            return gamma_linear(x, weight, bias, self._gamma)
        return self._rules.linear_epsilon(x, weight, bias)

    def _pair(self, func: Callable[..., Any], rule: Callable[..., Any], a: Any, b: Any) -> Any:
        """Two variables share relevance; a constant takes none."""
        if varies(a) and varies(b):
            return rule(*torch.broadcast_tensors(a, b))
        return pass_on(func, *((a, b) if varies(a) else (b, a)))

    def _softmax(self, x: Tensor, dim: int, *_: Any, dtype: Any = None) -> Any:
        return self._rules.softmax(x, dim, dtype=dtype)
