"""The gradient of batch normalisation of single images, in any memory layout."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

import gradtoken
from gradtoken.models.batch_norm import ContiguousBatchNorm
from gradtoken.models.reading.grid import grid_of

TRANSPOSED = (8, 1, 32, 8)
"""The strides of 16 tokens of 8 channels that became a (1, 8, 4, 4) image."""


def norm() -> nn.BatchNorm2d:
    module = nn.BatchNorm2d(8).double().eval()
    nn.init.normal_(module.weight)
    nn.init.normal_(module.running_mean)
    nn.init.uniform_(module.running_var, 0.5, 2)
    return module


def image(strides: tuple[int, ...]) -> Tensor:
    return torch.randn(1, 8, 4, 4, dtype=torch.float64).as_strided((1, 8, 4, 4), strides)


@pytest.mark.parametrize("given", [(128, 16, 4, 1), (128, 1, 32, 8), TRANSPOSED])
@pytest.mark.parametrize("back", [(128, 16, 4, 1), (128, 1, 32, 8), TRANSPOSED])
def test_batch_norm_gradient_in_any_memory_layout(
    given: tuple[int, ...], back: tuple[int, ...]
) -> None:
    module = norm()
    pixels, gradient = image(given).requires_grad_(), image(back)
    with ContiguousBatchNorm():
        made = module(pixels)
    assert torch.equal(made, module(pixels))
    (actual,) = torch.autograd.grad(made, pixels, gradient)
    scale = module.weight / (module.running_var + module.eps).sqrt()
    torch.testing.assert_close(actual, gradient * scale[None, :, None, None])


def test_xcit_gradient_of_one_image_equals_batch() -> None:
    torch.manual_seed(0)
    module = timm.create_model("xcit_nano_12_p16_224", img_size=64, num_classes=5).eval().double()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "gamma" in name:
                parameter.fill_(1)
    pixels = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    model = gradtoken.wrap(module)
    actual = gradtoken.explain(model, pixels, 3, method="input-x-gradient").tokens[0, 0]
    twice = pixels.repeat(2, 1, 1, 1).requires_grad_()
    gradient = torch.autograd.grad(module(twice)[0, 3], twice)[0][0]
    grid = grid_of(model, pixels)
    expected = grid.pool((gradient * pixels[0]).sum(0)[None])[0] * grid.area()
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-8)
