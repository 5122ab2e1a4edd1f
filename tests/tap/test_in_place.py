"""Models that write in place are explained as twins that do not, by every method."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor, resize

import gradtoken
from gradtoken.attribution import make_method, methods
from gradtoken.errors import GradTokenError
from gradtoken.models import Model
from gradtoken.tap.in_place import OutOfPlace, out_of_place, written_to
from gradtoken.targets import resolve
from gradtoken.trace.record import record
from tests.conftest import images_for, tiny_vit
from tests.models.writing import (
    PLACES,
    SUMS,
    Own,
    hf_vit,
    onto_made,
    onto_tokens,
    own_vit,
    plain,
    timm_vit,
)
from tests.snapshot import Snapshot

OPTIONS = {"vit-cx": {"distance": 0.1}, "occlusion": {"window": 2, "stride": 2}}
PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    **{
        f"timm: {spelling}": (lambda a=add: timm_vit(a), lambda t=twin: timm_vit(t))
        for spelling, (add, twin) in SUMS.items()
    },
    **{
        f"timm: {place}": (lambda b=build: b(True), lambda b=build: b(False))
        for place, build in PLACES.items()
    },
    "transformers: x += a": (lambda: hf_vit(onto_tokens), hf_vit),
    "transformers: a += x": (lambda: hf_vit(onto_made), hf_vit),
    "own: x += a": (lambda: own_vit(onto_tokens), own_vit),
    "own: a += x": (lambda: own_vit(onto_made), own_vit),
    "own, mean: x += a": (lambda: own_vit(onto_tokens, mean=True), lambda: own_vit(mean=True)),
}
"""A model that writes in place, and its twin that computes the same and writes nothing."""


def preprocess(image: Image.Image) -> Tensor:
    return pil_to_tensor(resize(image, [64, 64])).double() / 255 - 0.5


def wrapped(module: nn.Module) -> Model:
    own = isinstance(module, Own)
    return gradtoken.wrap(module, preprocess=preprocess) if own else gradtoken.wrap(module)


@cache
def pair(name: str) -> tuple[Model, Model]:
    writing, twin = PAIRS[name]
    return wrapped(writing()), wrapped(twin())


def maps_of(model: Model, images: Tensor, method: str, **options: object) -> Tensor | str:
    trace = record(model, images)
    kind = make_method(method)
    made = make_method(method, **{**kind.trial, **OPTIONS.get(method, {}), **options})
    try:
        with torch.no_grad():
            return made(trace, resolve([1, 3], trace.logits, model.labels))
    except GradTokenError as error:
        return str(error)


def assert_as_twin(name: str, method: str, **options: object) -> None:
    model, twin = pair(name)
    images = images_for((64, 64))
    kept, before = images.clone(), Snapshot(model.module)
    actual = maps_of(model, images, method, **options)
    expected = maps_of(twin, images, method, **options)
    assert model.writes_in_place
    assert not twin.writes_in_place
    assert torch.equal(images, kept)
    before.check(model.module)
    if isinstance(expected, str):
        assert actual == expected
        return
    assert isinstance(actual, Tensor), actual
    scale = float(expected.abs().max())
    assert scale > 0
    torch.testing.assert_close(actual, expected, rtol=1e-7, atol=1e-8 * scale)


@pytest.mark.parametrize("method", methods())
@pytest.mark.parametrize("name", PAIRS)
def test_methods_explain_in_place_model_as_its_twin(name: str, method: str) -> None:
    assert_as_twin(name, method)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("gradtoken", {"gradient": "full", "channel_weight": "product"}),
        ("gradtoken", {"spread": "attention", "layers": "last"}),
        ("gradtoken", {"spread": "token"}),
        ("beyond-intuition", {"variant": "token", "steps": 2}),
        ("cdam", {"gradient": "integrated", "steps": 2}),
        ("grad-cam", {"features": "attention"}),
        ("gae", {"libra": True}),
        ("attcat", {"libra": True}),
        ("legrad", {"libra": True}),
        ("daam", {"libra": True}),
        ("grad-eclip", {"heads": "one"}),
        ("input-x-gradient", {"libra": True}),
    ],
)
@pytest.mark.parametrize("name", ["timm: x += a", "timm: attention", "own, mean: x += a"])
def test_options_explain_in_place_model_as_its_twin(name: str, method: str, options: dict) -> None:
    assert_as_twin(name, method, **options)


def test_attcat_of_in_place_model_equals_plain_autograd(batch: Tensor) -> None:
    """Of the twin, whose entering tokens are there to be differentiated by."""
    model, twin = pair("timm: x += a")
    images = images_for((64, 64), 1)
    tokens: list[Tensor] = []
    handles = [
        block.register_forward_pre_hook(lambda _, args: tokens.append(args[0]))
        for block in twin.module.blocks
    ]
    score = twin.module(images.requires_grad_())[0, 1]
    grads = torch.autograd.grad(score, tokens)
    for handle in handles:
        handle.remove()
    expected = sum((t * g).sum(-1) for t, g in zip(tokens, grads, strict=True))[:, 1:]
    actual = maps_of(model, images.detach(), "attcat", attention=False)
    torch.testing.assert_close(actual[:, 0], expected.detach())


def test_in_place_model_runs_no_more_often() -> None:
    """Once when it is read, and once for each record."""
    for add in (onto_tokens, plain):
        runs: list[int] = []
        module = timm_vit(add)
        module.register_forward_hook(lambda *_, runs=runs: runs.append(1))
        model = wrapped(module)
        for _ in range(2):
            record(model, images_for((64, 64)))
        assert runs == [1, 1, 1]


def test_no_copies_of_model_that_does_not_write(batch: Tensor) -> None:
    model = gradtoken.wrap(tiny_vit())
    entering: list[Tensor] = []
    model.module.blocks[0].norm1.register_forward_pre_hook(lambda _, args: entering.append(args[0]))
    trace = record(model, batch)
    assert entering[-1].data_ptr() == trace.block_record.inputs[0].data_ptr()


def test_images_stay_unchanged_by_in_place_model() -> None:
    model, _ = pair("timm: input, positions and tail")
    images = images_for((64, 64))
    kept = images.clone()
    trace = record(model, images)
    assert torch.equal(images, kept)
    assert torch.equal(trace.images, kept)
    model(images)
    assert torch.equal(images, kept)


WRITING = {
    "add_": lambda x, y: x.add_(y),
    "sub_": lambda x, y: x.sub_(y, alpha=2),
    "clamp_": lambda x, y: x.clamp_(min=0.1),
    "relu_": lambda x, y: torch.relu_(x),
    "elu_": lambda x, y: F.elu(x, 1.0, True),
    "inplace=True": lambda x, y: F.silu(x, inplace=True),
    "copy_": lambda x, y: x.copy_(y),
    "zero_": lambda x, y: x.zero_(),
    "masked_fill_": lambda x, y: x.masked_fill_(x > 0, 0.5),
    "out=": lambda x, y: torch.mul(x, y, out=x),
    "index": lambda x, y: x.__setitem__((slice(None), 0), y[:, 0]),
}


@pytest.mark.parametrize("write", WRITING.values(), ids=WRITING)
def test_out_of_place_keeps_values_and_gradients(
    write: Callable[[Tensor, Tensor], object],
) -> None:
    """By finite differences of the same code without a graph, which may write as it likes."""

    def value(x: Tensor, y: Tensor) -> Tensor:
        x, y = x * 1.5, y.sin()
        kept = x.exp() * x
        one, other = x.chunk(2, dim=1)
        one *= 0.5
        write(x, y)
        return (kept * x.cos()).sum() + other.square().sum()

    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, 4, generator=generator).double() for _ in range(2))
    with out_of_place(nn.Linear(1, 1)):
        torch.autograd.gradcheck(value, (x.requires_grad_(), y.requires_grad_()))
        actual = value(x, y)
    with torch.no_grad():
        torch.testing.assert_close(actual, value(x, y))


@pytest.mark.parametrize("taken", [lambda x: x.unbind(0), lambda x: x.split([1, 1]), iter])
def test_out_of_place_allows_writing_into_views(taken: Callable[[Tensor], object]) -> None:
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    with OutOfPlace():
        made = x * 2
        first, second = taken(made)
        first *= 3
        second += first.reshape(second.shape)
        (actual,) = torch.autograd.grad(made.square().sum(), x)
    with torch.enable_grad():
        top, bottom = x[0] * 6, x[1] * 2 + x[0] * 6
        (expected,) = torch.autograd.grad(top.square().sum() + bottom.square().sum(), x)
    torch.testing.assert_close(actual, expected)


def test_written_to_ignores_functions_without_new_values() -> None:
    x = torch.zeros(2, 3)
    for func in (torch.Tensor.requires_grad_, torch.Tensor.unsqueeze_, torch.Tensor.add):
        assert written_to(func, (x, 1), {}) is None
    assert written_to(F.relu, (x, False), {}) is None
    assert written_to(F.relu, (x, True), {}) is x
    assert written_to(torch.Tensor.__iadd__, (x, 1), {}) is x
