"""LibraGrad's rules, one by one, against plain autograd of what they stand for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from timm.layers import SwiGLU
from torch import Tensor, nn
from torch.nn import functional as F

from gradtoken.errors import NotSupportedError
from gradtoken.tap.libra import ConstantNorms, Libra


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


WEIGHT, BIAS, OTHER = drawn(6, seed=1), drawn(6, seed=2), drawn(6, 6, seed=3)
PARAMETER = nn.Parameter(drawn(6, seed=4))


def layer_norm(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    deviation = ((centred**2).mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / deviation.detach() * WEIGHT + BIAS


def rms_norm(x: Tensor) -> Tensor:
    return x / ((x**2).mean(-1, keepdim=True) + 1e-5).sqrt().detach() * WEIGHT


def gated(x: Tensor, gate: Tensor) -> Tensor:
    return x * gate.detach()


def halved(product: Tensor) -> Tensor:
    return product / 2 + (product / 2).detach()


def tanh_gate(x: Tensor) -> Tensor:
    return (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2


def by_hand_rms(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * WEIGHT


def attention(x: Tensor) -> Tensor:
    weights = ((x @ OTHER) @ x.mT / 6**0.5).softmax(-1)
    return weights.detach() @ x


Case = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
CASES: dict[str, Case] = {
    "layer norm": (lambda x: F.layer_norm(x, (6,), WEIGHT, BIAS, 1e-5), layer_norm),
    "layer norm, two dimensions": (
        lambda x: F.layer_norm(x, (5, 6)),
        lambda x: (
            (x - x.mean((-2, -1), keepdim=True))
            / (x.var((-2, -1), unbiased=False, keepdim=True) + 1e-5).sqrt().detach()
        ),
    ),
    "RMS norm": (lambda x: F.rms_norm(x, (6,), WEIGHT, 1e-5), rms_norm),
    "RMS norm by hand": (by_hand_rms, rms_norm),
    "gelu": (F.gelu, lambda x: gated(x, (1 + torch.erf(x / 2**0.5)) / 2)),
    "gelu by tanh": (
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: gated(x, tanh_gate(x)),
    ),
    "silu": (F.silu, lambda x: gated(x, x.sigmoid())),
    "sigmoid gate": (
        lambda x: x * torch.sigmoid(1.702 * x),
        lambda x: gated(x, torch.sigmoid(1.702 * x)),
    ),
    "relu": (F.relu, F.relu),
    "product of variables": (
        lambda x: (x @ OTHER) * F.silu(x),
        lambda x: halved((x @ OTHER) * gated(x, x.sigmoid())),
    ),
    "matrix product of variables": (
        lambda x: (x @ OTHER) @ x.mT,
        lambda x: halved((x @ OTHER) @ x.mT),
    ),
    "einsum of variables": (
        lambda x: torch.einsum("bnd,bmd->bnm", x, x @ OTHER),
        lambda x: halved(torch.einsum("bnd,bmd->bnm", x, x @ OTHER)),
    ),
    "product with what is computed of parameters": (
        lambda x: x * (1 + PARAMETER) * PARAMETER.exp() @ PARAMETER.expand(6, 6).T,
        lambda x: (
            (x * (1 + PARAMETER.detach()) * PARAMETER.detach().exp())
            @ PARAMETER.detach().expand(6, 6).T
        ),
    ),
    "quotient": (lambda x: (x + 1) / (x**2 + 1), lambda x: (x + 1) / (x**2 + 1).detach()),
    "normalize": (
        lambda x: F.normalize(x, dim=-1),
        lambda x: x / x.norm(dim=-1, keepdim=True).detach(),
    ),
    "attention": (
        lambda x: F.scaled_dot_product_attention(x @ OTHER, x, x),
        attention,
    ),
    "attention by hand": (
        lambda x: ((x @ OTHER) @ x.mT / 6**0.5).softmax(-1) @ x,
        attention,
    ),
    "batch norm in evaluation mode": (
        lambda x: F.batch_norm(x, BIAS[:5], WEIGHT[:5].abs()),
        lambda x: F.batch_norm(x, BIAS[:5], WEIGHT[:5].abs()),
    ),
}


def gradient(func: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    value = func(x)
    (grad,) = torch.autograd.grad((value * drawn(*value.shape, seed=7)).sum(), x)
    return value.detach(), grad


@pytest.mark.parametrize("name", CASES)
def test_libra_gradient_equals_its_rule(name: str) -> None:
    func, by_hand = CASES[name]
    x = drawn(2, 5, 6)

    def under_libra(x: Tensor) -> Tensor:
        with Libra("a model"):
            return func(x)

    (value, grad), (_, expected) = gradient(under_libra, x), gradient(by_hand, x)
    assert torch.equal(value, func(x).detach())
    torch.testing.assert_close(grad, expected)


def test_libra_of_multi_head_attention_equals_constant_weights() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.MultiheadAttention(6, 2, batch_first=True).double().eval()
    x = drawn(2, 5, 6)

    def under_libra(x: Tensor) -> Tensor:
        with Libra("a model"):
            return layer(x, x, x, need_weights=False)[0]

    def by_hand(x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (2, 3)).transpose(1, 2)
            for part in F.linear(x, layer.in_proj_weight, layer.in_proj_bias).chunk(3, dim=-1)
        )
        weights = (q @ k.mT / 3**0.5).softmax(-1).detach()
        return layer.out_proj((weights @ v).transpose(1, 2).flatten(2))

    (value, grad), (same, expected) = gradient(under_libra, x), gradient(by_hand, x)
    torch.testing.assert_close(value, same)
    torch.testing.assert_close(grad, expected)


def test_libra_of_gated_mlp_is_complete_without_biases() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = SwiGLU(6, 12, bias=False).double()
    x = drawn(2, 5, 6).requires_grad_()
    with Libra("a model"):
        value = layer(x)[..., 0].sum()
    (grad,) = torch.autograd.grad(value, x)
    torch.testing.assert_close((x * grad).sum(), value)


def test_libra_leaves_parameters_without_gradient() -> None:
    layer = nn.Linear(6, 6).double()
    x = drawn(2, 6).requires_grad_()
    with Libra("a model"):
        value = layer(x)
        assert not (layer.weight.T @ layer.weight).requires_grad
    value.sum().backward()
    assert layer.weight.grad is None
    assert x.grad is not None
    assert layer.weight.requires_grad


@pytest.mark.parametrize(
    ("name", "func"),
    [
        ("tanh", torch.tanh),
        ("pow", lambda x: x**3),
        ("var_mean", lambda x: torch.var_mean(x, -1)[0]),
        ("batch_norm", lambda x: F.batch_norm(x, None, None, training=True)),
    ],
)
def test_libra_names_operation_without_rule(name: str, func: Callable[[Tensor], Tensor]) -> None:
    x = drawn(2, 5, 6).requires_grad_()
    with Libra("a model"):
        value = func(x)
    words = rf"with libra=True has no rule for (__)?{name}(__)?, which a model uses"
    with pytest.raises(NotSupportedError, match=words):
        torch.autograd.grad(value.sum(), x)


def test_libra_takes_operation_without_rule_where_no_gradient_arrives() -> None:
    x = drawn(2, 5, 6).requires_grad_()
    with Libra("a model"):
        value = x / torch.tanh(x).abs().add(1)
    torch.autograd.grad(value.sum(), x)


def test_constant_norms_change_nothing_but_the_gradient_of_normalize() -> None:
    def under_mode(x: Tensor) -> Tensor:
        with ConstantNorms():
            return F.normalize(x, dim=-1) * torch.tanh(x)

    x = drawn(2, 6)
    (value, grad), (same, expected) = (
        gradient(under_mode, x),
        gradient(lambda x: x / x.norm(dim=-1, keepdim=True).detach() * torch.tanh(x), x),
    )
    torch.testing.assert_close(value, same)
    torch.testing.assert_close(grad, expected)
