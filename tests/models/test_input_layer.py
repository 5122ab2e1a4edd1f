"""The layer that pixels enter: its channels and its type."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from gradtoken.models.input_layer import count_channels, first_layer, input_dtype, mixed_types
from tests.models.zoo import ZOO

NAMES = [
    "vit_tiny_patch16_224",
    "vit_base_r50_s16_224",
    "naflexvit_base_patch16_gap",
    "xcit_nano_12_p16_224",
    "swin_tiny_patch4_window7_224",
    "hiera_tiny_224",
    "maxvit_tiny_tf_224",
    "pit_ti_224",
    "cait_xxs24_224",
    "eva02_tiny_patch14_224",
]


@pytest.mark.parametrize("channels", [1, 3, 13])
@pytest.mark.parametrize("name", NAMES)
def test_count_channels_of_timm(name: str, channels: int) -> None:
    with torch.device("meta"):
        module = timm.create_model(name, in_chans=channels)
    assert count_channels(module) == channels


@pytest.mark.parametrize(
    "name", ["CLIPModel", "SwinForImageClassification", "open_clip ViT", "torchvision swin_t"]
)
def test_count_channels_of_other_libraries(name: str) -> None:
    assert count_channels(ZOO[name].build()) == 3


def test_input_dtype_is_that_of_first_layer() -> None:
    module = nn.Sequential(nn.LayerNorm(4), nn.Conv2d(3, 4, 1)).half()
    module[0].float()
    assert input_dtype(first_layer(module), module) == torch.float16
    assert "float16 and float32" in mixed_types(module)
    assert mixed_types(module.float()) == ""
    linear = nn.Linear(2, 2).double()
    assert first_layer(linear) is None
    assert input_dtype(None, linear) == torch.float64
    assert input_dtype(None, nn.Identity()) == torch.float32
