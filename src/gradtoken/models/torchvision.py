"""torchvision: reading an unmodified ViT, Swin or MaxViT, and building one by name."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.error import URLError

import torch
import torchvision.models as zoo
from torch import Tensor, nn
from torchvision.models import MaxVit, SwinTransformer, VisionTransformer
from torchvision.models.vision_transformer import interpolate_embeddings
from torchvision.transforms._presets import ImageClassification

from gradtoken.errors import ModelError, did_you_mean
from gradtoken.images.preprocess import Preprocess
from gradtoken.models.checkpoint import check_fit, fit, own_names
from gradtoken.models.families import BuiltModel, Size
from gradtoken.models.layout import TokenLayout
from gradtoken.tap.anatomy import Anatomy, Pool, channels_first, channels_last
from gradtoken.targets.labels import Labels

_CLASSES = 1000


def read(module: Any, name: str) -> tuple[Anatomy, TokenLayout]:
    """The anatomy and token layout of a torchvision transformer.

    Raises:
        ModelError: no transformer.
    """
    if isinstance(module, VisionTransformer):
        patch = (module.patch_size, module.patch_size)
        return Anatomy("class token", tuple(module.encoder.layers)), TokenLayout(patch)
    if isinstance(module, SwinTransformer):
        pool = Pool(module.norm, flat=channels_last)
    elif isinstance(module, MaxVit):
        pool = Pool(module.classifier, at_input=True, flat=channels_first)
    else:
        raise ModelError(
            f"{name} ({type(module).__name__}) is not one of torchvision's Vision Transformers; "
            "use torchvision/vit_b_16, swin_t, swin_v2_t, maxvit_t or their larger siblings."
        )
    return (
        Anatomy("mean of the last stage", (), pool=pool),
        TokenLayout(patch=None, prefix=0, readout=(), pool=0),
    )


def read_preprocess(module: Any) -> Preprocess:
    """torchvision's evaluation preprocessing for a module's input size.

    A module does not know its weights; `load` takes the weights' own transform.
    """
    side = getattr(module, "image_size", 224)
    return _preprocess(ImageClassification(crop_size=side, resize_size=round(side / 0.875)))


def _preprocess(transform: ImageClassification) -> Preprocess:
    return Preprocess(transform, mean=tuple(transform.mean), std=tuple(transform.std))


def count_classes(module: Any) -> int:
    """How many classes the head has."""
    sizes = [part.out_features for part in module.modules() if isinstance(part, nn.Linear)]
    return int(sizes[-1]) if sizes else 0


def read_labels(module: Any, classes: int) -> Labels:
    """ImageNet's names for a thousand classes, numbers otherwise."""
    if classes != _CLASSES:
        return Labels.numbered(classes)
    return Labels(zoo.ViT_B_16_Weights.DEFAULT.meta["categories"])


def read_prompts(module: Any, tokenizer: Any = None) -> None:
    """These models read no text."""


def names() -> list[str]:
    """The transformers that torchvision builds."""
    return [name for name in zoo.list_models(zoo) if name.startswith(("vit_", "swin_", "maxvit"))]


def build(
    name: str, *, pretrained: bool, state: Mapping[str, Tensor] | None, size: Size | None
) -> BuiltModel:
    """A model by name with its default weights, none, or a checkpoint's, and its preprocessing.

    Raises:
        ModelError: unknown, weights that cannot be had, a checkpoint that does not fit, or a size
            that the architecture does not take.
    """
    if name not in names():
        raise ModelError(
            f"torchvision has no Vision Transformer named {name!r}"
            f"{did_you_mean(name, names()) or '; `gradtoken models` lists them.'}"
        )
    weights: Any = zoo.get_model_weights(name).DEFAULT
    transform = weights.transforms()
    options: dict[str, Any] = {}
    if size is not None:
        transform.crop_size, transform.resize_size = [*size], [round(max(size) / 0.875)]
        options = _options(name, size)
    preprocess = _preprocess(transform)
    try:
        if state is None and pretrained:
            state = weights.get_state_dict(progress=True, check_hash=True)
    except pickle.UnpicklingError:
        raise ModelError(
            f"the cached weights of torchvision/{name} hold more than tensors, and loading them "
            "could run code; remove them from torch's hub folder and load again."
        ) from None
    except (URLError, OSError, RuntimeError) as error:
        raise ModelError(
            f"the pretrained weights of torchvision/{name} are not in the cache and cannot be "
            f"downloaded ({error}); pass checkpoint=FILE, pretrained=False (--random-weights), or "
            "try the bundled model with load('demo') (--model demo)."
        ) from None
    try:
        module = _create(name, state, options)
    except ValueError as error:
        raise ModelError(f"torchvision cannot build {name!r} with {options}: {error}") from None
    return BuiltModel(module, preprocess)


def _options(name: str, size: Size) -> dict[str, Any]:
    """What a builder takes to make a model for an input size."""
    if name.startswith("maxvit"):
        return {"input_size": size}
    if not name.startswith("vit"):
        return {}
    if size[0] != size[1]:
        raise ModelError(
            f"torchvision/{name} takes square images only, and image_size={size} is none; give "
            "one number, or use timm's model of the same kind."
        )
    return {"image_size": size[0]}


def _create(name: str, state: Mapping[str, Tensor] | None, options: dict[str, Any]) -> nn.Module:
    if state is None:
        module: nn.Module = zoo.get_model(name, weights=None, **options)
        return module
    with torch.device("meta"):
        shapes = zoo.get_model(name, weights=None)
    state = own_names(state, shapes.state_dict())
    last = [path for path, part in shapes.named_modules() if isinstance(part, nn.Linear)][-1]
    head = state.get(f"{last}.weight")
    if head is None or not head.numel() or not head.ndim:
        raise ModelError(
            f"the checkpoint has no '{last}.weight', so it is no {name}: it begins with "
            f"{', '.join(list(state)[:3])}; save model.state_dict() of the torchvision model."
        )
    make = partial(zoo.get_model, name, weights=None, num_classes=head.shape[0], **options)
    if "image_size" in options:
        state = _interpolated(name, state, options["image_size"])
    with torch.device("meta"):
        check_fit(make(), state, f"torchvision/{name}")
    module = make()
    fit(module, state, f"torchvision/{name}")
    return module


def _interpolated(name: str, state: Mapping[str, Tensor], size: int) -> Mapping[str, Tensor]:
    """A ViT's state dict with position embeddings for another image size."""
    try:
        patch = state["conv_proj.weight"].shape[-1]
        resized: Mapping[str, Tensor] = interpolate_embeddings(size, patch, OrderedDict(state))
    except (LookupError, ArithmeticError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the checkpoint's position embeddings do not fit torchvision/{name}: {error}."
        ) from None
    return resized
