"""Other input sizes than a model's own: bigger, and not square."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import gradtoken
from gradtoken.errors import ModelError
from tests.models.zoo import ZOO, seeded


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return Image.effect_noise((150, 100), 80).convert("RGB")


@pytest.mark.parametrize(
    ("spec", "size", "grid"),
    [
        ("timm/vit_tiny_patch16_224", (160, 96), (10, 6)),
        ("timm/deit_tiny_distilled_patch16_224", 128, (8, 8)),
        ("timm/swin_tiny_patch4_window7_224", (256, 128), (8, 4)),
        ("torchvision/vit_b_32", 256, (8, 8)),
        ("torchvision/swin_t", (192, 256), (6, 8)),
        ("hf/dinov2", (140, 84), (10, 6)),
        ("hf/vit", 64, (4, 4)),
        ("open_clip/ViT-S-32", (160, 96), (5, 3)),
    ],
)
def test_load_image_size_sets_grid_and_map(
    spec: str, size: int | tuple[int, int], grid: tuple[int, int], image: Image.Image
) -> None:
    model = gradtoken.load(spec, pretrained=False, image_size=size, device="cpu")
    sides = (size, size) if isinstance(size, int) else size
    assert tuple(model.preprocess(image).shape) == (3, *sides)
    targets = gradtoken.text("a cat", "a dog") if model.prompts else [0, 1]
    actual = gradtoken.explain(model, image, targets)
    assert actual.tokens.shape == (1, 2, *grid)
    assert actual.relevance.shape == (1, 2, 100, 150)
    assert not torch.allclose(actual.tokens[:, 0], actual.tokens[:, 1])


def test_load_image_size_of_demo(image: Image.Image) -> None:
    own = gradtoken.load("demo", device="cpu")
    other = gradtoken.load("demo", image_size=(112, 160), device="cpu")
    rows, columns = gradtoken.explain(own, image, [0]).tokens.shape[-2:]
    side = own.preprocess(image).shape[-1]
    actual = gradtoken.explain(other, image, [0]).tokens
    assert actual.shape[-2:] == (112 * rows // side, 160 * columns // side)


def test_load_image_size_of_checkpoint_equals_library(tmp_path: Path, image: Image.Image) -> None:
    import timm
    import torchvision.models as zoo

    torch.manual_seed(0)
    ours = timm.create_model("vit_tiny_patch16_224", num_classes=4).eval()
    save_file(ours.state_dict(), tmp_path / "timm.safetensors")
    model = gradtoken.load(
        "timm/vit_tiny_patch16_224",
        checkpoint=tmp_path / "timm.safetensors",
        image_size=(96, 128),
        device="cpu",
    )
    ours.set_input_size(img_size=(96, 128))
    pixels = model.preprocess(image)[None]
    torch.testing.assert_close(model(pixels), ours(pixels).detach())

    theirs = zoo.vit_b_32(num_classes=4).eval()
    save_file(theirs.state_dict(), tmp_path / "torchvision.safetensors")
    model = gradtoken.load(
        "torchvision/vit_b_32",
        checkpoint=tmp_path / "torchvision.safetensors",
        image_size=128,
        device="cpu",
    )
    assert model.module.encoder.pos_embedding.shape[1] == 17
    weights, before = model.module.state_dict(), theirs.state_dict()
    assert torch.equal(weights["conv_proj.weight"], before["conv_proj.weight"])
    position = "encoder.pos_embedding"
    assert torch.equal(weights[position][:, 0], before[position][:, 0])


def test_load_image_size_keeps_processor_of_folder(tmp_path: Path, image: Image.Image) -> None:
    from transformers import ViTImageProcessor

    module = seeded(ZOO["ViTForImageClassification"].build).float()
    module.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 64, "width": 64}, image_mean=[0.1, 0.2, 0.3]).save_pretrained(
        tmp_path
    )
    model = gradtoken.load(f"hf/{tmp_path}", image_size=(64, 96), device="cpu")
    assert model.preprocess.mean == (0.1, 0.2, 0.3)
    pixels = model.preprocess(image)[None]
    with torch.no_grad():
        expected = module.eval()(pixel_values=pixels, interpolate_pos_encoding=True).logits
    torch.testing.assert_close(model(pixels), expected)


@pytest.mark.parametrize(
    ("spec", "size", "words"),
    [
        ("timm/vit_tiny_patch16_224", 0, "image_size=0 is no size"),
        ("timm/vit_tiny_patch16_224", (224,), r"image_size=\(224,\) is no size"),
        ("timm/vit_tiny_patch16_224", 22.4, r"image_size=22\.4 is no size"),
        ("torchvision/vit_b_32", (256, 128), "torchvision/vit_b_32 takes square images only"),
        ("torchvision/maxvit_t", 230, "torchvision cannot build 'maxvit_t'.*230"),
        ("hf/vit", 8, r"hf/vit \(ViTForImageClassification\) takes no images of 8x8 pixels"),
    ],
)
def test_load_rejects_image_size(spec: str, size: object, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        gradtoken.load(spec, pretrained=False, image_size=size)  # type: ignore[arg-type]
