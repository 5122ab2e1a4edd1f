"""From an image to the model's input."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import v2

import gradtoken
from gradtoken.errors import ImageError, ModelError
from gradtoken.images.preprocess import Preprocess, check_tensor
from gradtoken.models.timm.preprocess import build_preprocess
from tests.conftest import tiny_vit
from tests.images.data_config import config
from tests.images.multichannel import SIZE, array, channel_transform, rgb


def test_preprocess_rendering_by_indices() -> None:
    preprocess = Preprocess(channel_transform(4), channels=4, rendering=(3, 2, 1))
    model = gradtoken.wrap(tiny_vit(in_chans=4), preprocess=preprocess)
    explanation = gradtoken.explain(model, array(4), 1)
    expected = (array(4)[..., [3, 2, 1]] * 255).round().astype(np.uint8)
    assert np.array_equal(np.asarray(explanation.sources[0].image), expected)
    again = pickle.loads(pickle.dumps(Preprocess(v2.Resize(SIZE), channels=4, rendering=(3, 2, 1))))
    assert (again.channels, again.rendering, again.mean) == (4, (3, 2, 1), (0.5,) * 4)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_of_library_converts_to_grey(mode: str) -> None:
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
    explanation = gradtoken.explain(model, image, 1)
    assert explanation.relevance.shape == (1, 1, 60, 90)
    assert np.asarray(explanation.sources[0].image).shape == (60, 90, 3)


def test_of_library_uses_timm_normalisation_of_one_channel() -> None:
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


def test_of_library_uses_timm_normalisation_of_four_channels() -> None:
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
    ("options", "words"),
    [
        ({"mean": (0.5, 0.5), "std": (0.5,) * 3}, "2 means, 3 standard deviations"),
        ({"mean": (0.5, 0.5), "channels": 3}, "2 means, 1 standard deviations and channels=3"),
        ({"mean": ()}, "0 means"),
        ({"channels": 0}, "channels=0"),
    ],
)
def test_preprocess_rejects_inconsistent_channels(options: dict, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Preprocess(lambda x: x, **options)


def test_to_image_undoes_normalisation(picture: Image.Image) -> None:
    preprocess = build_preprocess(config())
    tensor = preprocess(picture)
    shown = transforms.functional.to_tensor(preprocess.to_image(tensor))
    assert (shown - (tensor * 0.25 + 0.5)).abs().max() < 0.003


def test_preprocess_rejects_wrong_output(picture: Image.Image) -> None:
    for transform, words in [
        (lambda image: image, "it returned Image"),
        (lambda image: torch.zeros(1, 8, 8), r"it returned \(1, 8, 8\)"),
    ]:
        with pytest.raises(ModelError, match=words):
            Preprocess(transform)(picture)


def test_preprocess_rejects_elongated_image() -> None:
    with pytest.raises(ImageError, match="too elongated"):
        build_preprocess(config())(Image.new("RGB", (5001, 5)))


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.zeros(2, 1, 8, 8), "is not a preprocessed batch"),
        (torch.zeros(8, 8), "is not a preprocessed batch"),
        (torch.zeros(0, 3, 8, 8), "batch is empty"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "is not preprocessed"),
        (torch.full((1, 3, 8, 8), torch.nan), "NaN or infinite"),
        (torch.full((3, 8, 8), torch.inf), "NaN or infinite"),
    ],
)
def test_check_tensor_rejects_bad_tensors(tensor: torch.Tensor, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        check_tensor(tensor)


def test_preprocess_equals_timm(picture: Image.Image) -> None:
    settings = config()
    ours = build_preprocess(settings)(picture)
    assert torch.equal(ours, timm.data.create_transform(**settings, is_training=False)(picture))


def test_picture_is_deprecated_name_of_to_image(picture: Image.Image) -> None:
    preprocess = build_preprocess(config())
    tensor = preprocess(picture)
    with pytest.warns(DeprecationWarning, match=r"use Preprocess\.to_image"):
        assert preprocess.picture(tensor) == preprocess.to_image(tensor)
