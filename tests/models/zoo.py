"""Small random models of every family: one of each way to lay out tokens and to read a class.

Each entry builds a module with five classes (or an embedding of eight or more) and says what must
be found in it: the input size, the token grid, the prefix tokens and the readout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import timm
import torch
from packaging.version import Version
from torch import nn


@dataclass(frozen=True)
class Entry:
    build: Callable[[], nn.Module]
    size: tuple[int, int]
    grid: tuple[int, int]
    prefix: int
    readout: str


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """A module in float64 whose every weight matters: no zero heads, no tiny layer scales."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build()
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=0.08)
                else:
                    parameter.normal_(mean=float(parameter.float().mean().clamp(-1, 1)), std=0.1)
                    if float(parameter.abs().max()) < 1e-3:
                        parameter.add_(0.1)
    return module.double().eval()


NARROW = {"embed_dim": 96, "num_heads": 3}
NARROW_STAGES = {"depths": (1, 1, 1, 2), "embed_dim": 24, "num_heads": (1, 2, 4, 8)}
"""Large models with few channels and blocks: all that is read of them is the same."""
AT_128 = {"input_size": (3, 128, 128)}
"""For models that take images of one size, which timm reads from here alone."""


def _timm(
    name: str,
    size: int | tuple[int, int],
    grid: int | tuple[int, int],
    prefix: int,
    readout: str,
    **options: Any,
) -> Entry:
    size = (size, size) if isinstance(size, int) else size
    grid = (grid, grid) if isinstance(grid, int) else grid
    return Entry(
        lambda: timm.create_model(name, num_classes=5, **options), size, grid, prefix, readout
    )


def _vit(name: str, patch: int, prefix: int, readout: str, **options: Any) -> Entry:
    """A plain timm ViT cut to three blocks, few channels and an input of four by four patches."""
    size = (4 * patch, 4 * patch)
    given = {"img_size": size, "depth": 3, **NARROW, **options}
    return _timm(name, size, 4, prefix, readout, **given)


CLASS, MEAN, LAST = "class token", "mean of patch tokens", "mean of the last stage"
BOTH = "class and distillation token"
PIT = f"{BOTH} of the last stage" if Version(timm.__version__) >= Version("1.0.25") else CLASS
"""Before 1.0.25 timm's PiT gave the class token to both of its heads."""

TIMM = {
    "vit_tiny_patch16_224": _vit("vit_tiny_patch16_224", 16, 1, CLASS),
    "vit_small_patch32_224": _vit("vit_small_patch32_224", 32, 1, CLASS),
    "vit_small_patch8_224": _vit("vit_small_patch8_224", 8, 1, CLASS),
    "vit, not square": _timm(
        "vit_tiny_patch16_224", (48, 80), (3, 5), 1, CLASS, img_size=(48, 80), depth=3
    ),
    "vit, dynamic size": _timm(
        "vit_tiny_patch16_224", (64, 96), (4, 6), 1, CLASS, depth=3, dynamic_img_size=True
    ),
    "vit, mean of all tokens": _vit(
        "vit_tiny_patch16_224",
        16,
        1,
        "mean of all tokens",
        global_pool="avg",
        pool_include_prefix=True,
    ),
    "vit, registers": _vit("vit_tiny_patch16_224", 16, 5, CLASS, reg_tokens=4),
    "vit_medium_patch16_reg4_gap_256": _vit("vit_medium_patch16_reg4_gap_256", 16, 4, MEAN),
    "vit_small_patch14_dinov2": _vit("vit_small_patch14_dinov2", 14, 1, CLASS),
    "vit_small_patch14_reg4_dinov2": _vit("vit_small_patch14_reg4_dinov2", 14, 5, CLASS),
    "vit_base_patch16_clip_224": _vit("vit_base_patch16_clip_224", 16, 1, CLASS),
    "vit_base_patch16_siglip_224": _vit("vit_base_patch16_siglip_224", 16, 0, "attention pool"),
    "vit, attention pool without the class token": _vit(
        "vit_tiny_patch16_224", 16, 1, "attention pool", global_pool="map"
    ),
    "vit_base_patch16_siglip_gap_224": _vit("vit_base_patch16_siglip_gap_224", 16, 0, MEAN),
    "vit_relpos_small_patch16_224": _vit("vit_relpos_small_patch16_224", 16, 0, MEAN),
    "vit_relpos_medium_patch16_cls_224": _vit("vit_relpos_medium_patch16_cls_224", 16, 1, CLASS),
    "vit_srelpos_small_patch16_224": _vit("vit_srelpos_small_patch16_224", 16, 0, MEAN),
    "vit_small_patch16_18x2_224": _vit("vit_small_patch16_18x2_224", 16, 1, CLASS),
    "vit_base_patch16_rpn_224": _vit("vit_base_patch16_rpn_224", 16, 0, MEAN),
    "vit_small_patch16_rope_224": _vit("vit_small_patch16_rope_224", 16, 1, CLASS),
    "vit_small_patch16_dinov3": _vit(
        "vit_small_patch16_dinov3", 16, 5, MEAN, embed_dim=384, num_heads=6
    ),
    "vit_small_patch16_dinov3, class token": _vit(
        "vit_small_patch16_dinov3", 16, 5, CLASS, global_pool="token"
    ),
    "flexivit_small": _vit("flexivit_small", 16, 1, CLASS),
    "deit_tiny_patch16_224": _vit("deit_tiny_patch16_224", 16, 1, CLASS),
    "deit_tiny_distilled_patch16_224": _vit("deit_tiny_distilled_patch16_224", 16, 2, BOTH),
    "deit3_small_patch16_224": _vit("deit3_small_patch16_224", 16, 1, CLASS),
    "beit_base_patch16_224": _vit("beit_base_patch16_224", 16, 1, MEAN),
    "beitv2_base_patch16_224, class token": _vit(
        "beitv2_base_patch16_224", 16, 1, CLASS, global_pool="token"
    ),
    "eva02_tiny_patch14_224": _vit("eva02_tiny_patch14_224", 14, 1, MEAN),
    "eva02_tiny_patch14_224, class token": _vit(
        "eva02_tiny_patch14_224", 14, 1, CLASS, global_pool="token"
    ),
    "naflexvit_base_patch16_gap": _timm(
        "naflexvit_base_patch16_gap", (48, 64), (3, 4), 4, MEAN, depth=2, **NARROW
    ),
    "cait_xxs24_224": _timm("cait_xxs24_224", 64, 4, 0, "class attention", img_size=64, depth=3),
    "xcit_nano_12_p16_224": _timm("xcit_nano_12_p16_224", 64, 4, 0, "class attention", depth=3),
    "pit_ti_224": _timm("pit_ti_224", 224, 7, 1, "class token of the last stage", depth=(1, 2, 2)),
    "pit_ti_distilled_224": _timm("pit_ti_distilled_224", 224, 7, 2, PIT, depth=(1, 2, 2)),
    "swin_tiny_patch4_window7_224": _timm(
        "swin_tiny_patch4_window7_224", 112, 4, 0, LAST, img_size=112, **NARROW_STAGES
    ),
    "swinv2_tiny_window8_256": _timm(
        "swinv2_tiny_window8_256", (128, 192), (4, 6), 0, LAST, img_size=(128, 192), **NARROW_STAGES
    ),
    "swinv2_cr_tiny_224": _timm("swinv2_cr_tiny_224", 224, 7, 0, LAST, **NARROW_STAGES),
    "hiera_tiny_224": _timm(
        *("hiera_tiny_224", 128, 4, 0, LAST),
        img_size=(128, 128),
        embed_dim=24,
        stages=(1, 1, 2, 1),
        pretrained_cfg_overlay=AT_128,
    ),
    "maxvit_tiny_tf_224": _timm(
        *("maxvit_tiny_tf_224", 128, 4, 0, LAST),
        img_size=128,
        pretrained_cfg_overlay=AT_128,
        depths=(1,) * 4,
        embed_dim=(32, 32, 64, 96),
        stem_width=16,
    ),
}

_SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 64,
    "patch_size": 16,
}


def _hf(
    name: str, prefix: int, readout: str, size: tuple[int, int] = (64, 64), **options: Any
) -> Entry:
    def build() -> nn.Module:
        import transformers

        config = getattr(transformers, f"{name.split('For', maxsplit=1)[0]}Config")
        settings = {**_SMALL, "num_labels": 5, **options}
        return getattr(transformers, name)(config(**settings))

    return Entry(build, size, (size[0] // 16, size[1] // 16), prefix, readout)


def _hf_windowed(name: str, side: int, **options: Any) -> Entry:
    def build() -> nn.Module:
        import transformers

        config = getattr(transformers, f"{name.split('For', maxsplit=1)[0]}Config")
        return getattr(transformers, name)(config(num_labels=5, **options))

    return Entry(build, (64, 64), (side, side), 0, LAST)


def _hf_pair(name: str, prefix: int, readout: str, *, classes: int | None = None) -> Entry:
    """CLIP and SigLIP, whose config holds a image side and a text side."""

    def build() -> nn.Module:
        import transformers

        text = {**_SMALL, "num_hidden_layers": 2, "vocab_size": 99}
        ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        kind = name.split("For", maxsplit=1)[0].removesuffix("Model")
        settings: dict[str, Any] = {
            "vision_config": _SMALL,
            "text_config": {k: v for k, v in text.items() if "size" in k or "num" in k} | ends,
        }
        if classes:
            settings["num_labels"] = classes
        return getattr(transformers, name)(getattr(transformers, f"{kind}Config")(**settings))

    return Entry(build, (64, 64), (4, 4), prefix, readout)


_SWIN = {
    "image_size": 64,
    "patch_size": 4,
    "embed_dim": 16,
    "depths": [1, 1, 2],
    "num_heads": [1, 2, 4],
    "window_size": 4,
}
CLASS_AND_MEAN = f"{CLASS} and {MEAN}"
AVERAGES_PATCHES_ALONE = Version(version("transformers")) >= Version("5")
REGISTERS = CLASS_AND_MEAN if AVERAGES_PATCHES_ALONE else f"5 class tokens and {MEAN}"
"""transformers 4.50 averages the registers too, each of which is a token that its head reads."""

HF = {
    "ViTForImageClassification": _hf("ViTForImageClassification", 1, CLASS),
    "ViT, other size": _hf("ViTForImageClassification", 1, CLASS, size=(80, 96)),
    "DeiTForImageClassification": _hf("DeiTForImageClassification", 2, CLASS),
    "DeiTForImageClassificationWithTeacher": _hf("DeiTForImageClassificationWithTeacher", 2, BOTH),
    "Dinov2ForImageClassification": _hf("Dinov2ForImageClassification", 1, CLASS_AND_MEAN),
    "Dinov2WithRegistersForImageClassification": _hf(
        "Dinov2WithRegistersForImageClassification", 5, REGISTERS
    ),
    "BeitForImageClassification": _hf(
        "BeitForImageClassification", 1, MEAN, use_relative_position_bias=True
    ),
    "Beit, class token": _hf(
        "BeitForImageClassification",
        1,
        CLASS,
        use_relative_position_bias=True,
        use_mean_pooling=False,
    ),
    "Data2VecVisionForImageClassification": _hf(
        "Data2VecVisionForImageClassification", 1, MEAN, use_shared_relative_position_bias=True
    ),
    "ViTMSNForImageClassification": _hf("ViTMSNForImageClassification", 1, CLASS),
    "IJepaForImageClassification": _hf("IJepaForImageClassification", 0, MEAN),
    "CLIPForImageClassification": _hf_pair("CLIPForImageClassification", 1, MEAN, classes=5),
    "SiglipForImageClassification": _hf_pair("SiglipForImageClassification", 0, MEAN, classes=5),
    "CLIPModel": _hf_pair("CLIPModel", 1, "class token, projected"),
    "SiglipModel": _hf_pair("SiglipModel", 0, "attention pool"),
    "SwinForImageClassification": _hf_windowed("SwinForImageClassification", 4, **_SWIN),
    "Swinv2ForImageClassification": _hf_windowed("Swinv2ForImageClassification", 4, **_SWIN),
    "HieraForImageClassification": _hf_windowed(
        "HieraForImageClassification",
        2,
        image_size=[64, 64],
        embed_dim=16,
        num_heads=[1, 1, 2, 4],
        depths=[1, 1, 1, 1],
    ),
}


def _torchvision_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(
        image_size=64,
        patch_size=16,
        num_layers=3,
        num_heads=2,
        hidden_dim=32,
        mlp_dim=64,
        num_classes=5,
    )


def _torchvision_swin(version: int) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from torchvision.models import swin_transformer as swin

        second = {"block": swin.SwinTransformerBlockV2, "downsample_layer": swin.PatchMergingV2}
        return swin.SwinTransformer(
            patch_size=[4, 4],
            embed_dim=24,
            depths=[1, 1, 1, 2],
            num_heads=[1, 2, 4, 8],
            window_size=[7, 7] if version == 1 else [8, 8],
            num_classes=5,
            **(second if version == 2 else {}),
        )

    return build


def _torchvision_maxvit() -> nn.Module:
    from torchvision.models import MaxVit

    return MaxVit(
        input_size=(224, 224),
        stem_channels=16,
        partition_size=7,
        block_channels=[16, 32, 32, 64],
        block_layers=[1, 1, 1, 1],
        head_dim=16,
        stochastic_depth_prob=0.0,
        num_classes=5,
    )


TORCHVISION = {
    "torchvision VisionTransformer": Entry(_torchvision_vit, (64, 64), (4, 4), 1, CLASS),
    "torchvision swin_t": Entry(_torchvision_swin(1), (128, 128), (4, 4), 0, LAST),
    "torchvision swin_v2_t": Entry(_torchvision_swin(2), (128, 192), (4, 6), 0, LAST),
    "torchvision maxvit_t": Entry(_torchvision_maxvit, (224, 224), (7, 7), 0, LAST),
}


def _open_clip(readout: str, prefix: int, **vision: Any) -> Entry:
    def build() -> nn.Module:
        from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

        settings = {"layers": 3, "width": 64, "head_width": 32, "patch_size": 16, "image_size": 64}
        return CLIP(
            embed_dim=16,
            vision_cfg=CLIPVisionCfg(**{**settings, **vision}),
            text_cfg=CLIPTextCfg(width=32, heads=2, layers=2, context_length=77),
        )

    return Entry(build, (64, 64), (4, 4), prefix, readout)


def _open_clip_timm(name: str, readout: str, prefix: int, pool: str) -> Entry:
    def build() -> nn.Module:
        from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

        return CustomTextCLIP(
            embed_dim=16,
            vision_cfg=CLIPVisionCfg(
                image_size=64,
                timm_model_name=name,
                timm_model_pretrained=False,
                timm_pool=pool,
                timm_proj="linear",
            ),
            text_cfg=CLIPTextCfg(width=32, heads=2, layers=2, context_length=77),
        )

    return Entry(build, (64, 64), (4, 4), prefix, readout)


OPEN_CLIP = {
    "open_clip ViT": _open_clip("class token, projected", 1),
    "open_clip ViT, mean": _open_clip(MEAN, 1, pool_type="avg"),
    "open_clip ViT, mean then norm": _open_clip(MEAN, 1, pool_type="avg", final_ln_after_pool=True),
    "open_clip ViT, attention pool": _open_clip("attention pool", 1, attentional_pool=True),
    "open_clip timm, class token": _open_clip_timm("test_vit", CLASS, 1, "token"),
    "open_clip timm, mean": _open_clip_timm("test_vit", MEAN, 1, "avg"),
}

ZOO: dict[str, Entry] = {**TIMM, **HF, **TORCHVISION, **OPEN_CLIP}
