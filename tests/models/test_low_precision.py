"""Live models in half precision, also where their parts differ in type."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from open_clip.model import (
    CLIP,
    CLIPTextCfg,
    CLIPVisionCfg,
    CustomTextCLIP,
    convert_weights_to_lp,
)
from torch import Tensor, nn

import gradtoken
from gradtoken.errors import ModelError
from tests.conftest import tiny_vit

PROMPTS = gradtoken.text("a photo of a cat", "a dog on the grass")
TYPES = [torch.float16, torch.bfloat16]


def clip(kind: type = CLIP, cast: torch.dtype | None = None, **vision: Any) -> nn.Module:
    settings = {"layers": 3, "width": 64, "head_width": 32, "patch_size": 16, "image_size": 64}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(
            embed_dim=16,
            vision_cfg=CLIPVisionCfg(**{**settings, **vision}),
            text_cfg=CLIPTextCfg(width=32, heads=2, layers=2),
            cast_dtype=cast,
        ).eval()


def mixed(dtype: torch.dtype, **vision: Any) -> nn.Module:
    """As open_clip's `precision="fp16"` makes it: norms and positions stay in float32."""
    module = clip(cast=dtype, **vision)
    convert_weights_to_lp(module, dtype=dtype)
    assert len({parameter.dtype for parameter in module.parameters()}) == 2
    return module


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("make", ["whole", "custom", "mixed"])
def test_explain_open_clip_in_half_precision(dtype: torch.dtype, make: str, images: Tensor) -> None:
    kind = CustomTextCLIP if make == "custom" else CLIP
    module = mixed(dtype) if make == "mixed" else clip(kind).to(dtype)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    model = gradtoken.wrap(module)
    assert model.dtype == dtype
    actual = gradtoken.explain(model, images, PROMPTS)
    exact = gradtoken.explain(gradtoken.wrap(clip(kind)), images, PROMPTS)
    error = 2e-3 if dtype == torch.float16 else 2e-2
    torch.testing.assert_close(actual.scores, exact.scores, rtol=0, atol=error)
    for ours, theirs in zip(actual.tokens.flatten(0, 1), exact.tokens.flatten(0, 1), strict=True):
        both = torch.stack([ours.flatten(), theirs.flatten()])
        assert float(torch.corrcoef(both)[0, 1]) > 0.995
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_wrap_rejects_incompatible_types(images: Tensor) -> None:
    module = mixed(torch.float16, attentional_pool=True)
    with pytest.raises(RuntimeError, match="same dtype"):
        module.encode_image(images.half())
    with pytest.raises(
        ModelError, match=r"different types, float16 and float32; .* module\.float\(\)"
    ):
        gradtoken.explain(gradtoken.wrap(module), images, PROMPTS)


def test_explain_after_changing_type() -> None:
    model = gradtoken.wrap(tiny_vit())
    assert model.dtype == torch.float64
    model.module.float()
    assert model.dtype == torch.float32
