"""FullGrad+ against its equation written out, and its completeness."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.errors import MethodError
from gradtoken.models import Model
from gradtoken.targets import resolve
from gradtoken.trace.record import record
from tests.attribution.compare import assert_equals
from tests.attribution.libra_by_hand import LibraWritten
from tests.conftest import images_for, inputs, tiny_vit
from tests.models.zoo import ZOO, seeded
from tests.oracle import Written


def by_hand(written: Written, label: int) -> Tensor:
    blocks, logits = written.forward()
    tokens = [block.entering for block in blocks]
    grads = torch.autograd.grad(logits[label], tokens)
    shares = [(t * g).sum(-1) for t, g in zip(tokens, grads, strict=True)]
    return torch.stack(shares).mean(0)


def test_fullgrad_plus_equals_equation(variant: Model) -> None:
    assert_equals(variant, "fullgrad-plus", by_hand, oracle=LibraWritten)


def test_fullgrad_plus_without_libra_equals_equation(model: Model) -> None:
    assert_equals(model, "fullgrad-plus", by_hand, libra=False)


def test_fullgrad_plus_is_complete_without_biases() -> None:
    module = tiny_vit()
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(parameter)
    model = gradtoken.wrap(module)
    trace = record(model, inputs(model))
    targets = resolve([3, 7], trace.logits, model.labels)
    sums = make_method("fullgrad-plus").by_block(trace, targets).sum(-1)
    assert sums.shape == (4, 2, 2)
    torch.testing.assert_close(sums, trace.logits[:, [3, 7]].expand(4, 2, 2))
    plain = make_method("fullgrad-plus", libra=False).by_block(trace, targets).sum(-1)
    assert float((plain - sums).abs().max()) > 0.1 * float(sums.abs().max())


def test_fullgrad_plus_rejects_windowed_model() -> None:
    name = "swin_tiny_patch4_window7_224"
    model = gradtoken.wrap(seeded(ZOO[name].build))
    with pytest.raises(MethodError, match="fullgrad-plus needs the tokens entering each block, an"):
        gradtoken.explain(
            model, images_for(ZOO[name].size), [lambda z: z[1]], method="fullgrad-plus"
        )
