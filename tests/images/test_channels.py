"""Models of other than three channels, from wrapping to the report."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.transforms import v2

import gradtoken
from gradtoken import Preprocess
from gradtoken.adapters.captum import Attribution
from gradtoken.attribution import make_method, methods
from gradtoken.checking import check
from gradtoken.errors import ImageError, ModelError
from gradtoken.images.channels import as_channels
from gradtoken.metrics import cascading_randomisation, deletion, filled, input_shift, insertion
from gradtoken.metrics.grid_pointing import mosaic
from gradtoken.models import Model
from gradtoken.report import Report
from tests.conftest import tiny_vit
from tests.models.zoo import HF, seeded

SIZE = (64, 64)
TO_TENSOR = (v2.Resize(SIZE), v2.ToImage(), v2.ToDtype(torch.float32, scale=True))


def deep_transform(channels: int, mean: float = 0.5, std: float = 0.25) -> v2.Compose:
    """Resize and normalise a tensor (C, H, W)."""
    return v2.Compose([v2.Resize(SIZE), v2.Normalize([mean] * channels, [std] * channels)])


def wrapped(channels: int) -> Model:
    module = tiny_vit(in_chans=channels)
    if channels in (1, 3):
        return gradtoken.wrap(module)
    preprocess = Preprocess(deep_transform(channels), mean=[0.5] * channels, std=[0.25] * channels)
    return gradtoken.wrap(module, preprocess=preprocess)


def noise(channels: int, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, channels, *SIZE, generator=generator).double()


def array(channels: int, size: tuple[int, int] = (60, 90)) -> np.ndarray:
    """Smooth values in 0..1 (H, W, C)."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((1, channels, 4, 6), dtype=np.float32))
    large = nn.functional.interpolate(coarse, size, mode="bilinear", align_corners=False)
    return np.ascontiguousarray(large[0].permute(1, 2, 0).numpy())


@pytest.mark.parametrize("channels", [1, 2, 4, 12, 13])
def test_tensors_are_explained_as_their_gradient_says(channels: int) -> None:
    """The map of input x gradient, pooled to tokens, is plain autograd's."""
    model, batch = gradtoken.wrap(tiny_vit(in_chans=channels)), noise(channels)
    assert model.channels == channels
    found = gradtoken.explain(model, batch, [1, 2], method="input-x-gradient")
    pixels = batch.clone().requires_grad_()
    for k, target in enumerate((1, 2)):
        (grad,) = torch.autograd.grad(model.module(pixels)[:, target].sum(), pixels)
        by_hand = (grad * batch).sum(1).unflatten(1, (8, 8)).unflatten(3, (8, 8)).sum((2, 4))
        torch.testing.assert_close(found.tokens[:, k].double(), by_hand, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(found.scores, model.module(batch)[:, [1, 2]])


@pytest.mark.parametrize("channels", [1, 4])
def test_every_method_works(channels: int) -> None:
    model = wrapped(channels)
    found = check(model)
    said = {name: words for name, words in found.methods.items() if words != "works"}
    assert {words.partition(" gave ")[2] for words in said.values()} <= {"a blank map."}
    batch = noise(channels, 1)
    for name in methods():
        method = make_method(name, **make_method(name).trial)
        tokens = gradtoken.explain(model, batch, [1], method=method).tokens
        assert tokens.shape == (1, 1, 8, 8)


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_arrays_of_that_depth_from_end_to_end(channels: int, tmp_path: Path) -> None:
    model, given = wrapped(channels), array(channels)
    found = gradtoken.explain(model, [given, given[:, ::-1].copy()], [1, 7])
    tensor = model.preprocess(_as_read(model, given))
    assert tensor.shape == (channels, *SIZE)
    direct = gradtoken.explain(model, tensor[None].double(), [1, 7])
    torch.testing.assert_close(found.tokens[:1], direct.tokens, rtol=1e-3, atol=1e-5)
    assert found.relevance.shape == (2, 2, 60, 90)
    assert found.overlay(1).size == (90, 60)
    assert found.boxes[0].visible((90, 60)) == (0, 0, 90, 60) or channels == 1
    assert found.figure() is not None
    folders = found.save(tmp_path / "out")
    records = [json.loads((folder / "manifest.json").read_text()) for folder in folders]
    assert records[0]["input"]["sha256"] != records[1]["input"]["sha256"]
    with Report(tmp_path / "r.html") as report:
        for one in found:
            report.add(one)
    assert (tmp_path / "r.html").stat().st_size > 1000
    assert direct.overlay().size == SIZE


def _as_read(model: Model, given: np.ndarray) -> Any:
    if model.preprocess.takes_images:
        return Image.fromarray((given[..., 0] * 255).round().astype(np.uint8)).convert("RGB")
    return as_channels(given, model.channels)


def test_what_a_deep_array_shows_and_what_tells_it_apart() -> None:
    model, one = wrapped(4), array(4)
    other = one.copy()
    other[..., 3] = 0
    found = gradtoken.explain(model, [one, other], 1)
    shown = [np.asarray(source.picture) for source in found.sources]
    assert np.array_equal(shown[0], shown[1])
    assert np.array_equal(shown[0], (one[..., :3] * 255).round().astype(np.uint8))
    assert found.sources[0].sha256 != found.sources[1].sha256
    assert not torch.equal(found.tokens[0], found.tokens[1])
    tensors = gradtoken.explain(model, noise(4), 1).sources
    assert tensors[0].sha256 != tensors[1].sha256


def test_a_rendering_of_ones_own() -> None:
    preprocess = Preprocess(deep_transform(4), channels=4, rendering=(3, 2, 1))
    model = gradtoken.wrap(tiny_vit(in_chans=4), preprocess=preprocess)
    found = gradtoken.explain(model, array(4), 1)
    expected = (array(4)[..., [3, 2, 1]] * 255).round().astype(np.uint8)
    assert np.array_equal(np.asarray(found.sources[0].picture), expected)
    again = pickle.loads(pickle.dumps(Preprocess(v2.Resize(SIZE), channels=4, rendering=(3, 2, 1))))
    assert (again.channels, again.rendering, again.mean) == (4, (3, 2, 1), (0.5,) * 4)


def test_maps_of_deep_arrays_return_to_where_they_lay() -> None:
    crop = v2.Compose([v2.Lambda(lambda x: x[:, 10:50, 20:60]), v2.Resize(SIZE)])
    box = Preprocess(crop, channels=4).box((90, 60))
    for found, expected in zip(box, (20, 10, 60, 50), strict=True):
        assert abs(found - expected) < 1.5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64, np.bool_])
def test_arrays_of_all_types(dtype: type) -> None:
    given = array(5) > 0.5 if dtype is np.bool_ else array(5)
    scale = {np.uint8: 255, np.uint16: 65535}.get(dtype, 1)
    found = as_channels(
        (given * scale).round().astype(dtype) if scale > 1 else given.astype(dtype), 5
    )
    assert found.shape == (5, 60, 90)
    expected = torch.from_numpy(given.transpose(2, 0, 1).astype(np.float32))
    torch.testing.assert_close(found, expected, rtol=0, atol=0.51 / 255)
    assert torch.equal(
        as_channels(array(5) * 4000, 5), torch.from_numpy(array(5) * 4000).permute(2, 0, 1)
    )


def rgb(size: tuple[int, int] = (90, 60)) -> Image.Image:
    return Image.fromarray((array(3, size[::-1]) * 255).astype(np.uint8))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_grey_images_of_a_librarys_preprocessing(mode: str) -> None:
    """Converted to grey, resized as timm does, normalised with the mean of mean and std."""
    import timm.data

    module = tiny_vit(in_chans=1)
    image = rgb().convert(mode)
    config = timm.data.resolve_data_config({}, model=module)
    size = {"input_size": (3, *SIZE), "mean": (0.0,), "std": (1.0,)}
    plain = timm.data.create_transform(**{**config, **size}, is_training=False)
    grey = plain(image.convert("RGB").convert("L"))
    mean, std = np.mean(config["mean"]), np.mean(config["std"])
    model = gradtoken.wrap(module)
    torch.testing.assert_close(
        model.preprocess(image.convert("RGB")), (grey - mean) / std, rtol=1e-4, atol=1e-5
    )
    assert model.preprocess.mean == pytest.approx((mean,))
    found = gradtoken.explain(model, image, 1)
    assert found.relevance.shape == (1, 1, 60, 90)
    assert np.asarray(found.sources[0].picture).shape == (60, 90, 3)


def test_the_normalisation_that_timm_names_for_one_channel() -> None:
    module = tiny_vit(in_chans=1)
    module.pretrained_cfg = {
        "mean": (0.2,),
        "std": (0.4,),
        "input_size": (1, *SIZE),
        "crop_pct": 1.0,
    }
    model = gradtoken.wrap(module)
    assert (model.preprocess.mean, model.preprocess.std) == ((0.2,), (0.4,))
    white = model.preprocess(Image.new("RGB", SIZE, "white"))
    torch.testing.assert_close(white, torch.full((1, *SIZE), 2.0), rtol=1e-4, atol=1e-4)


def test_the_normalisation_that_timm_names_for_more_channels() -> None:
    module = tiny_vit(in_chans=4)
    module.pretrained_cfg = {
        "mean": (0.1, 0.2, 0.3, 0.4),
        "std": (0.5,) * 4,
        "input_size": (4, *SIZE),
        "crop_pct": 1.0,
    }
    model = gradtoken.wrap(module)
    ones = model.preprocess(torch.ones(4, 80, 80))
    assert ones[:, 0, 0].tolist() == pytest.approx([1.8, 1.6, 1.4, 1.2])
    assert gradtoken.explain(model, array(4, (80, 80)), 1).tokens.shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    "transform",
    [
        v2.Compose([v2.Grayscale(1), *TO_TENSOR]),
        v2.Compose(TO_TENSOR),
    ],
    ids=["made grey by the transform", "of grey images"],
)
@pytest.mark.parametrize("kind", ["timm", "own"])
def test_ones_own_preprocessing_of_one_channel(transform: v2.Compose, kind: str) -> None:
    module = tiny_vit(in_chans=1)
    given: nn.Module = module if kind == "timm" else nn.Sequential(module)
    model = gradtoken.wrap(given, preprocess=transform)
    assert model.channels == 1
    image = rgb().convert("L")
    tensor = v2.Compose(TO_TENSOR)(image)
    found = gradtoken.explain(model, image, 1)
    torch.testing.assert_close(
        found.tokens,
        gradtoken.explain(model, tensor[None].double(), 1).tokens,
        rtol=1e-3,
        atol=1e-4,
    )
    assert found.relevance.shape == (1, 1, 60, 90)


def test_a_module_of_no_library_with_deep_images() -> None:
    own = nn.Sequential(tiny_vit(in_chans=12))
    for preprocess in (Preprocess(deep_transform(12), channels=12), deep_transform(12)):
        model = gradtoken.wrap(own, preprocess=preprocess)
        assert model.channels == 12
        assert gradtoken.explain(model, array(12), 1).relevance.shape == (1, 1, 60, 90)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(4, 4))
    with pytest.raises(ModelError, match=r"fails on an RGB image .*channels=12"):
        gradtoken.wrap(linear, preprocess=deep_transform(12))


def test_a_module_that_makes_its_channels_itself() -> None:
    class Repeated(VisionTransformer):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.expand(-1, 3, -1, -1))

    with torch.random.fork_rng():
        module = Repeated(
            img_size=64, patch_size=8, embed_dim=48, depth=2, num_heads=3, num_classes=10
        ).eval()
    grey = v2.Compose([v2.Grayscale(1), *TO_TENSOR])
    model = gradtoken.wrap(module, preprocess=Preprocess(grey, channels=1))
    assert gradtoken.explain(model, rgb(), 1).tokens.shape == (1, 1, 8, 8)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("name", ["ViTForImageClassification", "SwinForImageClassification"])
def test_transformers(name: str, channels: int) -> None:
    module = seeded(lambda: _with_channels(HF[name].build(), channels))
    model = gradtoken.wrap(module)
    assert model.channels == channels
    assert gradtoken.explain(model, noise(channels), 1).tokens.shape == (2, 1, 4, 4)
    if channels == 1:
        assert gradtoken.explain(model, rgb(), 1).relevance.shape == (1, 1, 60, 90)
    else:
        with pytest.raises(ImageError, match="takes 4 channels, and this image has 3"):
            gradtoken.explain(model, rgb(), 1)


def _with_channels(module: nn.Module, channels: int) -> nn.Module:
    config = module.config
    config.num_channels = channels
    return type(module)(config)


def test_torchvision_with_another_first_layer() -> None:
    from torchvision.models import VisionTransformer as Vit

    module = Vit(
        image_size=64,
        patch_size=16,
        num_layers=2,
        num_heads=2,
        hidden_dim=32,
        mlp_dim=32,
        num_classes=5,
    )
    module.conv_proj = nn.Conv2d(1, 32, 16, 16)
    model = gradtoken.wrap(module)
    assert model.channels == 1
    assert gradtoken.explain(model, rgb(), 1).tokens.shape == (1, 1, 4, 4)


@pytest.mark.parametrize(
    ("channels", "given", "words"),
    [
        (
            4,
            lambda: noise(3),
            r"shape \(2, 3, 64, 64\).*takes 4 channels, and this has 3; give \(B, 4",
        ),
        (1, lambda: noise(3), "takes 1 channels, and this has 3"),
        (3, lambda: noise(4), "takes 3 channels, and this has 4"),
        (4, lambda: rgb(), r"takes 4 channels, and this image has 3; give an array \(H, W, 4\)"),
        (4, lambda: array(3), r"shape \(60, 90, 3\) .* takes 4 channels"),
        (4, lambda: array(1)[..., 0], r"shape \(60, 90\) .* takes 4 channels"),
        (3, lambda: array(12), r"shape \(60, 90, 12\) .* takes 3 channels"),
        (1, lambda: array(12), r"shape \(60, 90, 12\) .* takes 1 channels"),
        (4, lambda: np.full((8, 8, 4), np.nan), "NaN or infinite"),
        (4, lambda: np.zeros((8, 8, 4), np.int32), "array of int32 is no image"),
        (4, lambda: np.zeros((0, 8, 4)), "takes 4 channels"),
    ],
)
def test_other_channels_are_refused_with_both_numbers(
    channels: int, given: Any, words: str
) -> None:
    with pytest.raises(ImageError, match=words):
        gradtoken.explain(wrapped(channels), given(), 1)


def test_arrays_without_a_known_normalisation_are_refused() -> None:
    model = gradtoken.wrap(tiny_vit(in_chans=12))
    with pytest.raises(ModelError, match=r"how 12 channels are resized.*channels=12"):
        gradtoken.explain(model, array(12), 1)
    assert check(model, ["gradtoken", "rollout", "gae"]).works


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mean": (0.5, 0.5), "std": (0.5,) * 3}, "2 means, 3 standard deviations"),
        ({"mean": (0.5, 0.5), "channels": 3}, "2 means, 1 standard deviations and channels=3"),
        ({"mean": ()}, "0 means"),
        ({"channels": 0}, "channels=0"),
    ],
)
def test_normalisations_that_do_not_go_together(options: dict, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Preprocess(lambda x: x, **options)


def test_metrics_and_sanity_checks_take_any_channels() -> None:
    model, batch = wrapped(4), noise(4)
    maps = torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([1, 2])
    normal = {"mean": model.preprocess.mean, "std": model.preprocess.std}
    for metric in (insertion, deletion):
        assert metric(model, batch, maps, classes, steps=2, **normal).shape == (2, 3)
    black = filled(batch, "black", [0.1, 0.2, 0.3, 0.4], [0.5])
    assert black[0, :, 0, 0].tolist() == pytest.approx([-0.2, -0.4, -0.6, -0.8])
    assert mosaic(noise(4, 4), (32, 32)).shape == (1, 4, 32, 32)

    def explain(one: Model, some: Tensor) -> Tensor:
        return gradtoken.explain(one, some, 1).tokens[:, 0].flatten(1)

    assert float(input_shift(model, batch, explain).max()) < 1e-3
    assert len(cascading_randomisation(model, batch, explain)) == 6
    assert Attribution(model, "gae").attribute(batch, target=1).shape == batch.shape


@pytest.mark.parametrize("channels", [1, 4])
def test_a_checkpoint_of_other_channels(channels: int, tmp_path: Path) -> None:
    import timm

    module = timm.create_model(
        "vit_tiny_patch16_224", num_classes=3, in_chans=channels, img_size=64
    )
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    model = gradtoken.load("timm/vit_tiny_patch16_224", checkpoint=tmp_path / "w.safetensors")
    assert model.channels == channels
    batch = noise(channels).float()
    with torch.no_grad():
        torch.testing.assert_close(model(batch.to(model.device)).cpu(), module.eval()(batch))
