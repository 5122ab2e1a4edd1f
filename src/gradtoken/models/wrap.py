"""`wrap` a module that you have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image
from torch import Tensor, nn

from gradtoken.errors import ModelError
from gradtoken.images.preprocess import Preprocess
from gradtoken.models.build_model import LoadedModule, build_model
from gradtoken.models.forks import one_thread_in_forks
from gradtoken.models.layout import TokenLayout
from gradtoken.models.model import Model
from gradtoken.targets.activation import Activation, check_activation
from gradtoken.targets.labels import Names


def wrap(
    module: nn.Module,
    *,
    preprocess: Preprocess | Callable[[Image.Image], Tensor] | None = None,
    labels: Names | None = None,
    layout: TokenLayout | None = None,
    forward: Callable[[Any, Tensor], Any] | None = None,
    activation: Activation | None = None,
    tokenizer: Any = None,
) -> Model:
    """Make your own Vision Transformer explainable. The module itself is not changed.

    How the class is read, and which token is which patch, is verified on the module's own gradient
    and pixels, in two to three forwards of one image for most modules.

    Args:
        module: a live module of timm, transformers, torchvision or open_clip, or any other whose
            attention goes through `scaled_dot_product_attention` or `nn.MultiheadAttention`. Of a
            module from `torch.compile` or in DataParallel the original is explained.
        preprocess: from a PIL image to a normalised (C, H, W) tensor: any deterministic resize and
            crop. None uses the module's library's, of grey images for a module of one channel; a
            module of no known library needs one, and one of other than one or three channels
            (`Preprocess(…, channels=12)`) does to take arrays (H, W, C).
        labels: one name per class, in order, or a map of all ids to names (`id2label`) or of all
            names to ids (`label2id`). None uses the names that the library knows for this module,
            and "class 0", "class 1", … otherwise.
        layout: which tokens are what; None reads it from the module.
        forward: the module and a batch of images (B, C, H, W) to logits (B, C), where calling the
            module with the batch does not give them.
        activation: how logits become probabilities: "softmax", "sigmoid" or "none"; None detects
            it as `load` does.
        tokenizer: of a model that compares images with text, what makes token ids of prompts:
            `open_clip.get_tokenizer(NAME)`, or a tokenizer or processor of transformers. None is
            CLIP's for an open_clip model whose text tower is CLIP's (others need one), and for
            transformers the one beside the model's files.

    Raises:
        ModelError: if the readout of this module cannot be followed, or the labels, the activation
            or the tokenizer do not fit.
    """
    one_thread_in_forks()
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"wrap() needs a torch module, it got {type(module).__name__}; load(…) takes names."
        )
    if activation is not None:
        check_activation(activation)
    module = unwrapped(module)
    if preprocess is not None and not isinstance(preprocess, Preprocess):
        preprocess = Preprocess(preprocess)
    return build_model(
        LoadedModule(module, type(module).__name__, preprocess, labels),
        layout=layout,
        forward=forward,
        activation=activation,
        tokenizer=tokenizer,
    )


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside `torch.compile`, DataParallel, DistributedDataParallel and PEFT."""
    while True:
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            module = module.module
        elif isinstance(getattr(module, "_orig_mod", None), nn.Module):
            module = module._orig_mod  # type: ignore[assignment]
        elif _is_from(module, "peft") and hasattr(module, "get_base_model"):
            module = module.get_base_model()  # type: ignore[operator]
        else:
            return module


def _is_from(module: nn.Module, package: str) -> bool:
    """Whether a module's class is from a package."""
    return type(module).__module__.partition(".")[0] == package
