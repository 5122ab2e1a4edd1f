"""Loading by name through each library's own code: local folders, checkpoints, caches."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import gradtoken
from gradtoken.errors import ModelError
from tests.models.zoo import ZOO, seeded


@pytest.fixture
def image() -> Image.Image:
    return Image.effect_noise((120, 90), 80).convert("RGB")


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))


def test_load_transformers_folder(tmp_path: Path, image: Image.Image) -> None:
    from transformers import AutoImageProcessor, ViTImageProcessor

    module = seeded(ZOO["ViTForImageClassification"].build).float()
    module.config.id2label = {i: f"kind {i}" for i in range(5)}
    module.config.label2id = {f"kind {i}": i for i in range(5)}
    module.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    model = gradtoken.load(f"hf/{tmp_path}", device="cpu")
    assert list(model.labels) == [f"kind {i}" for i in range(5)]
    actual = gradtoken.explain(model, image, ["kind 1", 3])
    assert actual.tokens.shape == (1, 2, 4, 4)
    assert actual.relevance.shape == (1, 2, 90, 120)
    with torch.no_grad():
        pixels = AutoImageProcessor.from_pretrained(tmp_path)(image, return_tensors="pt")
        expected = module.eval()(**pixels).logits
    torch.testing.assert_close(actual.scores, expected[:, [1, 3]], rtol=1e-4, atol=1e-5)
    live = gradtoken.wrap(module, preprocess=model.preprocess)
    torch.testing.assert_close(
        gradtoken.explain(live, image, [1, 3]).tokens, actual.tokens, rtol=1e-3, atol=1e-5
    )


def test_load_transformers_clip_folder(tmp_path: Path, image: Image.Image) -> None:
    from transformers import CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *words]
    files = tmp_path / "words.json", tmp_path / "merges.txt"
    files[0].write_text(json.dumps({word: i for i, word in enumerate(vocabulary)}))
    files[1].write_text("#version: 0.2\n")
    module = seeded(ZOO["CLIPModel"].build).float()
    module.save_pretrained(tmp_path)
    CLIPTokenizer(str(files[0]), str(files[1])).save_pretrained(tmp_path)
    model = gradtoken.load(f"hf/{tmp_path}", device="cpu")
    prompts = ("a cat", "the dog on a mat")
    actual = gradtoken.explain(model, image, gradtoken.text(*prompts))
    assert actual.tokens.shape == (1, 2, 4, 4)
    tokens = CLIPTokenizer.from_pretrained(tmp_path)(
        list(prompts), return_tensors="pt", padding=True
    )
    pixels = model.preprocess(image)[None]
    with torch.no_grad():
        expected = module.eval()(pixel_values=pixels, **tokens).logits_per_image.softmax(-1)
    torch.testing.assert_close(actual.probabilities, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("no_hub")
def test_load_reports_missing_transformers_model() -> None:
    with pytest.raises(
        ModelError, match=r"hf/nobody/nothing cannot be loaded.*cannot be downloaded"
    ):
        gradtoken.load("hf/nobody/nothing")
    with pytest.raises(ModelError, match="did you mean 'dinov2'"):
        gradtoken.load("hf/dinov", pretrained=False)
    with pytest.raises(ModelError, match="for hf/, name the local folder"):
        gradtoken.load("hf/vit", checkpoint="x.safetensors")


def test_load_transformers_by_model_type() -> None:
    model = gradtoken.load("hf/vit", pretrained=False, device="cpu")
    assert type(model.module).__name__ == "ViTForImageClassification"
    with pytest.raises(ModelError, match=r"PvtV2ForImageClassification.* is not supported"):
        gradtoken.load("hf/pvt_v2", pretrained=False)


def test_load_torchvision_checkpoint(tmp_path: Path, image: Image.Image) -> None:
    import torchvision.models as zoo

    torch.manual_seed(0)
    module = zoo.swin_t(num_classes=7).eval()
    save_file(module.state_dict(), tmp_path / "mine.safetensors")
    model = gradtoken.load(
        "torchvision/swin_t", checkpoint=tmp_path / "mine.safetensors", device="cpu"
    )
    assert len(model.labels) == 7
    actual = gradtoken.explain(model, image, [1, 2])
    assert actual.tokens.shape == (1, 2, 7, 7)
    with torch.no_grad():
        expected = module(zoo.Swin_T_Weights.DEFAULT.transforms()(image)[None])
    torch.testing.assert_close(actual.scores, expected[:, [1, 2]], rtol=1e-4, atol=1e-5)
    save_file({"other": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=r"has no 'head\.weight', so it is no swin_t"):
        gradtoken.load("torchvision/swin_t", checkpoint=tmp_path / "other.safetensors")


def test_load_torchvision_reports_unknown_name_and_missing_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torchvision.models as zoo

    labels = list(gradtoken.load("torchvision/vit_b_32", pretrained=False, device="cpu").labels)
    assert labels == zoo.ViT_B_32_Weights.DEFAULT.meta["categories"]
    with pytest.raises(ModelError, match=r"no Vision Transformer named 'vit_b_17'.*did you mean"):
        gradtoken.load("torchvision/vit_b_17")
    with pytest.raises(ModelError, match="no Vision Transformer named 'resnet50'"):
        gradtoken.load("torchvision/resnet50")

    def fail(*_: object, **__: object) -> None:
        raise OSError("no connection")

    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    monkeypatch.setattr("torch.hub.get_dir", lambda: "/nowhere")
    monkeypatch.setattr("os.makedirs", lambda *_, **__: None)
    with pytest.raises(ModelError, match=r"torchvision/vit_b_32 are not in the cache.*no connec"):
        gradtoken.load("torchvision/vit_b_32")


def test_load_open_clip_checkpoint(tmp_path: Path, image: Image.Image) -> None:
    import open_clip

    torch.manual_seed(0)
    module = open_clip.create_model("ViT-S-32").eval()
    torch.save(module.state_dict(), tmp_path / "mine.pt")
    model = gradtoken.load("open_clip/ViT-S-32", checkpoint=tmp_path / "mine.pt", device="cpu")
    actual = gradtoken.explain(model, image, gradtoken.text("a cat", "a dog"))
    assert actual.tokens.shape == (1, 2, 7, 7)
    assert actual.relevance.shape == (1, 2, 90, 120)
    with torch.no_grad():
        prompts = open_clip.get_tokenizer("ViT-S-32")(["a cat", "a dog"])
        pixels = model.preprocess(image)[None]
        expected = module.get_logits(pixels, prompts)[0].softmax(-1)
    torch.testing.assert_close(actual.probabilities, expected, rtol=1e-3, atol=1e-5)


def test_load_open_clip_reports_unknown_name_and_missing_tag() -> None:
    with pytest.raises(ModelError, match=r"named 'ViT-B-33'.*did you mean"):
        gradtoken.load("open_clip/ViT-B-33/openai")
    with pytest.raises(ModelError, match=r"needs a pretrained tag.*one of: openai"):
        gradtoken.load("open_clip/ViT-B-32")
    with pytest.raises(ModelError, match=r"image side of kind ModifiedResNet"):
        gradtoken.load("open_clip/RN50", pretrained=False)


def test_family_names_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    for name in [name for name in sys.modules if name.startswith("gradtoken.models.open_clip")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(
        ModelError, match=r"need open_clip_torch.*pip install \"gradtoken\[clip\]\""
    ):
        gradtoken.load("open_clip/ViT-B-32/openai")
