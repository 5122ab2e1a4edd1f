"""Which parameters are the head, the blocks and the embedding, in every library."""

from __future__ import annotations

import copy
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import nn

import gradtoken
from gradtoken.errors import MethodError
from gradtoken.metrics import cascading_randomisation
from gradtoken.metrics.stages import stages
from gradtoken.models import Model
from tests.conftest import images_for
from tests.models.zoo import ZOO, seeded

HEADS = {
    "vit_tiny_patch16_224": {"norm", "head"},
    "vit_small_patch14_reg4_dinov2": {"norm", "head"},
    "deit_tiny_distilled_patch16_224": {"norm", "head", "head_dist"},
    "vit_base_patch16_siglip_224": {"norm", "attn_pool", "head"},
    "vit_base_patch16_siglip_gap_224": {"norm", "head"},
    "beit_base_patch16_224": {"fc_norm", "head"},
    "cait_xxs24_224": {"cls_token", "blocks_token_only", "norm", "head"},
    "xcit_nano_12_p16_224": {"cls_token", "cls_attn_blocks", "norm", "head"},
    "ViTForImageClassification": {"vit.layernorm", "classifier"},
    "DeiTForImageClassificationWithTeacher": {
        "deit.layernorm",
        "cls_classifier",
        "distillation_classifier",
    },
    "Dinov2ForImageClassification": {"dinov2.layernorm", "classifier"},
    "CLIPForImageClassification": {"classifier"},
    "CLIPModel": {"vision_model.post_layernorm", "visual_projection"},
    "SiglipModel": {"vision_model.post_layernorm", "vision_model.head"},
    "torchvision VisionTransformer": {"encoder.ln", "heads"},
    "open_clip ViT": {"visual.ln_post", "visual.proj"},
    "open_clip ViT, attention pool": {"visual.attn_pool", "visual.ln_post", "visual.proj"},
    "open_clip timm, class token": {"visual.trunk.norm", "visual.head"},
}
"""What is behind the last block, by the libraries' names."""


@cache
def made(kind: str) -> Model:
    return gradtoken.wrap(seeded(ZOO[kind].build))


def names(module: nn.Module, parameters: list[nn.Parameter]) -> set[str]:
    known = {id(p): name for name, p in module.named_parameters()}
    return {known[id(p)] for p in parameters}


def needed(model: Model, images: torch.Tensor) -> set[str]:
    """The parameters with which the output changes, by changing one after the other."""
    used, generator = set(), torch.Generator().manual_seed(0)
    before = model(images)
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            kept = parameter.clone()
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter))
            if not torch.allclose(before, model(images), rtol=0, atol=1e-9):
                used.add(name)
            parameter.copy_(kept)
    return used


@pytest.mark.parametrize("kind", HEADS)
def test_stages_head_is_all_behind_last_block(kind: str) -> None:
    model = made(kind)
    by_name = dict(stages(model, images_for(ZOO[kind].size)))
    head = names(model.module, by_name["head"])
    assert {n for n in head if not any((n + ".").startswith(p + ".") for p in HEADS[kind])} == set()
    for part in HEADS[kind]:
        assert any((name + ".").startswith(part + ".") for name in head), part
    inside = names(model.module, [p for b in model.anatomy.blocks for p in b.parameters()])
    assert not head & inside


@pytest.mark.parametrize(
    "kind",
    [
        "deit_tiny_distilled_patch16_224",
        "CLIPModel",
        "SiglipModel",
        "Data2VecVisionForImageClassification",
        "torchvision VisionTransformer",
        "open_clip ViT",
    ],
)
def test_stages_cover_used_parameters_once(kind: str) -> None:
    """By changing each parameter and looking at the output."""
    model, images = made(kind), images_for(ZOO[kind].size, 1)
    result = stages(model, images)
    assert result[-1][0] == "embedding"
    blocks = [name for name, _ in result if name.startswith("block")]
    assert blocks == [f"block {i}" for i in range(len(model.anatomy.blocks) - 1, -1, -1)]
    by_stage = [names(model.module, parameters) for _, parameters in result]
    everything = set().union(*by_stage)
    assert sum(map(len, by_stage)) == len(everything)
    assert {n for n in everything if not _no_effect(n)} == needed(model, images)


def _no_effect(name: str) -> bool:
    """A bias of keys adds the same to all of a query's scores, which the softmax takes out."""
    return name.endswith(("k_proj.bias", "key.bias"))


@pytest.mark.parametrize("kind", ["CLIPModel", "open_clip ViT"])
def test_randomisation_keeps_text_side(kind: str) -> None:
    model, images = made(kind), images_for(ZOO[kind].size, 1)
    before = copy.deepcopy(model.module.state_dict())
    states: list[dict[str, torch.Tensor]] = []

    def explain(twin: Model, images: torch.Tensor) -> torch.Tensor:
        states.append(copy.deepcopy(twin.module.state_dict()))
        assert twin.prompts is model.prompts
        return twin(images)

    result = cascading_randomisation(model, images, explain)
    assert result[0].name == "head"
    changed = [{n for n in before if not torch.equal(before[n], s[n])} for s in states[1:]]
    assert states[0].keys() == before.keys()
    text = {n for n in before if n.startswith(("text_", "transformer", "token_emb", "positional"))}
    text |= {n for n in before if n in ("logit_scale", "ln_final.weight", "ln_final.bias")}
    assert text
    assert not changed[-1] & text
    parts = HEADS[kind]
    assert {n for n in changed[0] if not any((n + ".").startswith(p + ".") for p in parts)} == set()
    assert any("proj" in name for name in changed[0])
    assert all(one < more for one, more in pairwise(changed))
    after = model.module.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_randomisation_starts_with_both_heads() -> None:
    kind = "deit_tiny_distilled_patch16_224"
    model, images = made(kind), images_for(ZOO[kind].size, 1)
    heads: list[tuple[torch.Tensor, torch.Tensor]] = []

    def explain(twin: Model, images: torch.Tensor) -> torch.Tensor:
        heads.append((twin.module.head.weight.clone(), twin.module.head_dist.weight.clone()))
        return twin(images)

    cascading_randomisation(model, images, explain)
    assert not torch.equal(heads[0][0], heads[1][0])
    assert not torch.equal(heads[0][1], heads[1][1])
    assert all(torch.equal(heads[1][i], later[i]) for later in heads[2:] for i in (0, 1))


def test_randomisation_rejects_model_without_blocks() -> None:
    kind = "swin_tiny_patch4_window7_224"
    with pytest.raises(MethodError, match="goes down block by block"):
        cascading_randomisation(made(kind), images_for(ZOO[kind].size, 1), lambda m, x: m(x))
