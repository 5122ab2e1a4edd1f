"""Prompts are read with the model's own tokenizer, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from torch import Tensor, nn
from torch.nn import functional as F

import gradtoken
from gradtoken.errors import ModelError
from gradtoken.metrics import cascading_randomisation
from gradtoken.models import Model
from tests.models.zoo import ZOO, seeded

PROMPTS = ("a photo of a cat", "a dog")
VISION = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}


class Letters:
    """A tokenizer of 30 words: letters, right-aligned to a length; the last one is 29."""

    def __init__(self, length: int = 8, words: int = 30) -> None:
        self.length, self.vocab_size = length, words

    def __call__(self, texts: list[str]) -> Tensor:
        rows = [[*(ord(c) % 28 + 1 for c in text[: self.length - 1]), 29] for text in texts]
        return torch.tensor([[0] * (self.length - len(row)) + row for row in rows])


def custom(kind: type = CustomTextCLIP, **text: Any) -> nn.Module:
    """A SigLIP-like open_clip model: its own text tower of another vocabulary."""
    settings = {"width": 16, "heads": 2, "layers": 2, "vocab_size": 30, "context_length": 8}
    return seeded(
        lambda: kind(
            embed_dim=16,
            vision_cfg=CLIPVisionCfg(**VISION),
            text_cfg=CLIPTextCfg(**{**settings, **text}),
        )
    )


def assert_scores_are_cosines(model: Model, tokenizer: Letters, images: Tensor) -> None:
    """The scores of the prompts are the cosines of the module's own embeddings."""
    actual = gradtoken.explain(model, images, gradtoken.text(*PROMPTS))
    with torch.no_grad():
        embeddings = model.module.encode_image(images, normalize=True)
        words = model.module.encode_text(tokenizer(list(PROMPTS)), normalize=True)
    torch.testing.assert_close(actual.scores, embeddings @ words.T, rtol=1e-5, atol=1e-6)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5)).double()


@pytest.mark.parametrize("kind", [CLIP, CustomTextCLIP])
def test_wrap_takes_own_tokenizer(kind: type, images: Tensor) -> None:
    module, tokenizer = custom(kind), Letters()
    model = gradtoken.wrap(module, tokenizer=tokenizer)
    assert_scores_are_cosines(model, tokenizer, images)


@pytest.mark.parametrize("kind", [CLIP, CustomTextCLIP])
def test_prompts_reject_clip_tokenizer_of_other_vocabulary(kind: type, images: Tensor) -> None:
    model = gradtoken.wrap(custom(kind))
    with pytest.raises(ModelError, match=r"vocabulary 30\) is not.*get_tokenizer\(NAME\)"):
        gradtoken.explain(model, images, gradtoken.text(*PROMPTS))
    by_function = gradtoken.explain(model, images, lambda z: z[0])
    assert by_function.tokens.shape == (2, 1, 2, 2)


@pytest.mark.parametrize("length", [77, 32])
def test_prompts_use_context_length_of_model(length: int, images: Tensor) -> None:
    for kind in (CLIP, CustomTextCLIP):
        module = custom(kind, vocab_size=49408, context_length=length)
        actual = gradtoken.explain(gradtoken.wrap(module), images, gradtoken.text(*PROMPTS))
        tokens = open_clip.SimpleTokenizer(context_length=length)(list(PROMPTS))
        with torch.no_grad():
            embeddings = module.encode_image(images, normalize=True)
            words = module.encode_text(tokens, normalize=True)
        torch.testing.assert_close(actual.scores, embeddings @ words.T, rtol=1e-5, atol=1e-6)


def of_transformers(rows: int) -> nn.Module:
    """A CLIP whose text tower is one of transformers, as xlm-roberta CLIPs have."""
    from transformers import RobertaConfig

    config = RobertaConfig(
        vocab_size=rows,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=20,
        pad_token_id=0,
    )
    module = custom()
    module.text = HFTextEncoder("x", 16, config, pooler_type="mean_pooler", proj_type="linear")
    return module.double().eval()


def test_prompts_of_transformers_text_tower(images: Tensor) -> None:
    module, tokenizer = of_transformers(49408), Letters(12)
    with pytest.raises(ModelError, match=r"HFTextEncoder, vocabulary 49,408\) is not known to be"):
        gradtoken.explain(gradtoken.wrap(module), images, gradtoken.text(*PROMPTS))
    module = of_transformers(30)
    model = gradtoken.wrap(module, tokenizer=tokenizer)
    assert_scores_are_cosines(model, tokenizer, images)


@pytest.mark.parametrize(
    ("tokenizer", "words"),
    [
        (open_clip.SimpleTokenizer(), "vocabulary of 49,408 and the text tower of .* one of 30"),
        (Letters(words=5), "vocabulary of 5 and the text tower of .* one of 30"),
        ("ViT-B-16-SigLIP2", "tokenizer is a str, which cannot be called"),
        (Letters(9), r"made 9 tokens of a prompt, and CustomTextCLIP was built for 8; .*length=8"),
        (
            lambda texts: Letters()(texts) + 20,
            "made the id 49, .* vocabulary of 30",
        ),
        (lambda texts: Letters()(texts)[:1], r"made \(1, 8\) of 2 prompts"),
        (lambda texts: Letters()(texts).tolist(), "made list of 2 prompts"),
        (lambda texts: Letters()(texts).float(), r"made \(2, 8\) of 2 prompts"),
    ],
)
def test_wrap_rejects_tokenizer(tokenizer: Any, words: str, images: Tensor) -> None:
    with pytest.raises(ModelError, match=words):
        gradtoken.explain(
            gradtoken.wrap(custom(), tokenizer=tokenizer), images, gradtoken.text(*PROMPTS)
        )


def test_wrap_rejects_tokenizer_of_classifier(model: Model) -> None:
    for module in (model.module, seeded(ZOO["ViTForImageClassification"].build)):
        with pytest.raises(ModelError, match="reads no text"):
            gradtoken.wrap(module, tokenizer=Letters())
    own = nn.Sequential(model.module)
    with pytest.raises(ModelError, match="reads no text"):
        gradtoken.wrap(own, preprocess=model.preprocess, tokenizer=Letters())


def test_prompts_of_randomised_copy(images: Tensor) -> None:
    model = gradtoken.wrap(custom(), tokenizer=Letters())

    def explain(one: Model, some: Tensor) -> Tensor:
        return gradtoken.explain(one, some, gradtoken.text(*PROMPTS)).tokens[:, 0].flatten(1)

    assert len(cascading_randomisation(model, images, explain)) == 4


def _words(folder: Path, count: int = 54) -> Any:
    """transformers' CLIP tokenizer of letters alone."""
    from transformers import CLIPTokenizer

    folder.mkdir()
    letters = "abcdefghijklmnopqrstuvwxyz"
    known = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)][:count]
    (folder / "words.json").write_text(json.dumps({word: i for i, word in enumerate(known)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "words.json"), str(folder / "merges.txt"))


@pytest.mark.parametrize("name", ["CLIPModel", "SiglipModel"])
def test_wrap_takes_transformers_tokenizer(name: str, tmp_path: Path) -> None:
    """In float32: the text side of transformers' CLIP does not run in float64 before 5.0."""
    module, tokenizer = seeded(ZOO[name].build).float(), _words(tmp_path / "t")
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    actual = gradtoken.explain(
        gradtoken.wrap(module, tokenizer=tokenizer), pixels, gradtoken.text(*PROMPTS)
    )
    length = module.config.text_config.max_position_embeddings
    padding = "max_length" if name == "SiglipModel" else True
    tokens = tokenizer(
        list(PROMPTS), padding=padding, truncation=True, max_length=length, return_tensors="pt"
    )
    with torch.no_grad():
        out = module(pixel_values=pixels, **tokens)
        expected = F.normalize(out.image_embeds, dim=-1) @ F.normalize(out.text_embeds, dim=-1).T
    torch.testing.assert_close(actual.scores, expected, rtol=1e-4, atol=1e-5)


def test_wrap_rejects_transformers_tokenizer(tmp_path: Path) -> None:
    module = seeded(ZOO["CLIPModel"].build)
    few = _words(tmp_path / "few", 20)
    with pytest.raises(ModelError, match="of 20 and the text tower of CLIPModel one of 99"):
        gradtoken.wrap(module, tokenizer=few)
    with pytest.raises(ModelError, match="tokenizer is a SimpleTokenizer, not a tokenizer or proc"):
        gradtoken.wrap(module, tokenizer=open_clip.SimpleTokenizer())
    few.save_pretrained(tmp_path / "beside")
    module.save_pretrained(tmp_path / "beside")
    module.config._name_or_path = str(tmp_path / "beside")
    pixels = torch.zeros(1, 3, 64, 64)
    with pytest.raises(ModelError, match=r"of 20 and the text tower of .*beside one of 99"):
        gradtoken.explain(gradtoken.wrap(module), pixels, gradtoken.text("a"))
    module.config._name_or_path = ""
    with pytest.raises(ModelError, match=r"tokenizer of 'CLIPModel' cannot.*tokenizer=…"):
        gradtoken.explain(gradtoken.wrap(module), pixels, gradtoken.text("a"))


@pytest.mark.parametrize("name", ["open_clip ViT", "open_clip timm, class token"])
def test_image_tower_alone_takes_function_targets(name: str) -> None:
    clip = seeded(ZOO[name].build)
    whole, alone = gradtoken.wrap(clip), gradtoken.wrap(clip.visual)
    size = ZOO[name].size
    pixels = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(5)).double()
    actual = gradtoken.explain(alone, pixels, lambda z: F.normalize(z, dim=-1)[:4].sum())
    expected = gradtoken.explain(whole, pixels, lambda z: F.normalize(z, dim=-1)[:4].sum())
    torch.testing.assert_close(actual.tokens, expected.tokens)
    with pytest.raises(ModelError, match=r"wrap\(clip\) in place of wrap\(clip\.visual\)"):
        gradtoken.explain(alone, pixels, gradtoken.text("a cat"))
