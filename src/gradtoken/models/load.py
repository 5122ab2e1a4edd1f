"""`load` a model by name, or `wrap` one you have."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from torch import Tensor, nn

from gradtoken.errors import ModelError, did_you_mean
from gradtoken.forks import one_thread_in_forks
from gradtoken.images import MAX_PIXELS
from gradtoken.labels import Labels
from gradtoken.layout import TokenLayout
from gradtoken.models import unknown
from gradtoken.models.checkpoint import read_checkpoint
from gradtoken.models.described import read_described
from gradtoken.models.families import FAMILIES, Found, Size, family, family_of
from gradtoken.models.hub import weights_only
from gradtoken.models.model import Model
from gradtoken.preprocess import Preprocess
from gradtoken.prompts import Prompts

_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def describes_itself(name: str) -> bool:
    """Whether a name is the bundled model's or a file's that brings architecture and weights."""
    return name == "demo" or Path(name).suffix == ".safetensors"


def load(
    spec: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    pretrained: bool = True,
    image_size: int | tuple[int, int] | None = None,
) -> Model:
    """Load a model to explain.

    Args:
        spec: "demo" (the bundled model); "timm/NAME", "torchvision/NAME",
            "hf/HUB-ID" or "hf/LOCAL-FOLDER", "open_clip/ARCHITECTURE/TAG", each with its library's
            own weights, cache, preprocessing and labels; or the path of a `.safetensors` file that
            describes its architecture, as the demo's does.
        device: where to put it; None is CUDA if there is one, else the CPU.
        dtype: what to compute in ("float32", "bfloat16", …); None is float32.
        checkpoint: your own weights for the architecture "timm/NAME", "torchvision/NAME" or
            "open_clip/ARCHITECTURE": a `.safetensors` or `.pt` state dict. The number of classes
            is read from it. (Of transformers, name the folder that `save_pretrained` made.)
        pretrained: False builds the architecture with random weights (always the same ones), from
            nothing but its name; "hf/" then also takes model types such as "hf/dinov2".
        image_size: (height, width) in pixels, or one number for both, that pictures are brought to
            instead of the model's own size; its position embeddings are interpolated, as its
            library does.

    Raises:
        ModelError: unknown name, weights that cannot be had, a size that the architecture does not
            take, or a model that cannot be explained.
    """
    one_thread_in_forks()
    if not isinstance(spec, (str, os.PathLike)):
        raise ModelError(f"load() takes a name or a path, it got {type(spec).__name__}.")
    name = os.fspath(spec)
    prefix, _, rest = name.partition("/")
    if checkpoint is not None and prefix not in ("timm", "torchvision", "open_clip"):
        raise ModelError(
            f"{name!r} brings its own weights; checkpoint= goes with 'timm/NAME', "
            "'torchvision/NAME' and 'open_clip/ARCHITECTURE'"
            + (" (for hf/, name the local folder)." if prefix == "hf" else ".")
        )
    if not pretrained and (describes_itself(name) or checkpoint is not None):
        raise ModelError("pretrained=False builds an architecture by name, without a weights file.")
    size = _size(image_size)
    if name == "demo":
        with as_file(files("gradtoken.models") / "assets" / "demo.safetensors") as path:
            model = _described(path, "demo", size)
    elif describes_itself(name):
        model = _described(Path(name), name, size)
    elif prefix in FAMILIES and rest:
        with _same_random_weights(not pretrained):
            model = _named(prefix, rest, checkpoint, pretrained, size)
            if not pretrained:
                _fill_blank_layers(model.module)
    else:
        near = did_you_mean(name, ["demo"]) or _as_timm(name)
        usual = "; use demo, timm/NAME, hf/ID, torchvision/NAME, open_clip/NAME/TAG or a file."
        raise ModelError(f"no model is named {name!r}{near or usual}")
    model.module.eval().to(device=_device(device), dtype=_dtype(dtype))
    return model


def wrap(
    module: nn.Module,
    *,
    preprocess: Preprocess | Callable[[Image.Image], Tensor] | None = None,
    labels: Sequence[str] | None = None,
    layout: TokenLayout | None = None,
) -> Model:
    """Make your own Vision Transformer explainable. The module itself is not changed.

    Args:
        module: a live module of timm, transformers, torchvision or open_clip, or any other whose
            attention goes through `scaled_dot_product_attention` or `nn.MultiheadAttention`. Of a
            module from `torch.compile` or in DataParallel the original is explained.
        preprocess: from a PIL image to a normalised (3, H, W) tensor: any deterministic resize and
            crop. None uses the module's library's; a module of no known library needs one.
        labels: one name per class. None uses the names that the library knows for this module, and
            "class 0", "class 1", … otherwise.
        layout: which tokens are what; None reads it from the module.

    Raises:
        ModelError: if the readout of this module cannot be followed, or the labels do not fit.
    """
    one_thread_in_forks()
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"wrap() needs a torch module, it got {type(module).__name__}; load(…) takes names."
        )
    module = _unwrapped(module)
    if preprocess is not None and not isinstance(preprocess, Preprocess):
        preprocess = Preprocess(preprocess)
    return _read(module, type(module).__name__, preprocess, labels, layout)


def _unwrapped(module: nn.Module) -> nn.Module:
    """The module inside `torch.compile`, DataParallel and DistributedDataParallel."""
    while True:
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            module = module.module
        elif isinstance(getattr(module, "_orig_mod", None), nn.Module):
            module = module._orig_mod  # type: ignore[assignment]
        else:
            return module


def _refuse_opaque(module: nn.Module, name: str) -> None:
    """Refuse what hides its attention or has no gradients."""
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(
            f"{name} is a scripted module, which hides its attention; pass the original."
        )
    for part in module.modules():
        home = type(part).__module__
        if "quantized" in home or home.startswith(("bitsandbytes", "torchao.")):
            raise ModelError(
                f"{name} is quantised ({type(part).__name__}), and quantised layers have no "
                "gradients; explain the model before quantisation, in float32 or bfloat16."
            )
    if any(not value.is_floating_point() for value in module.parameters()):
        raise ModelError(
            f"{name} is quantised (it has integer weights), which have no gradients; explain the "
            "model before quantisation, in float32 or bfloat16."
        )


def _read(
    module: nn.Module,
    spec: str,
    preprocess: Preprocess | None = None,
    labels: Sequence[str] | None = None,
    layout: TokenLayout | None = None,
    weights: str = "as given",
    prompts: Prompts | None = None,
) -> Model:
    """A module as a `Model`; what is not given is read from the module."""
    _refuse_opaque(module, spec)
    reader = family_of(module)
    if reader is None:
        return _unknown(module, spec, preprocess, labels, layout)
    anatomy, found = reader.read(module, spec)
    prompts = prompts or reader.read_prompts(module)
    return Model(
        module=module,
        spec=spec,
        preprocess=preprocess or reader.read_preprocess(module),
        labels=Labels([]) if prompts else _labels(reader, module, labels, spec),
        layout=layout or found,
        anatomy=anatomy,
        weights=weights,
        prompts=prompts,
    )


def _unknown(
    module: nn.Module,
    spec: str,
    preprocess: Preprocess | None,
    labels: Sequence[str] | None,
    layout: TokenLayout | None,
) -> Model:
    """A module of no known library, read by watching it at work."""
    if preprocess is None:
        raise ModelError(
            f"{spec} is a module of no library that gradtoken knows (timm, transformers, "
            "torchvision, open_clip), so its input is not known either; pass "
            "wrap(…, preprocess=…) to have it read by watching it at work."
        )
    like = next(module.parameters(), torch.empty(0))
    pixels = preprocess(Image.effect_noise((256, 256), 64).convert("RGB"))[None]
    pixels = pixels.to(like.device, like.dtype)
    anatomy, found = unknown.read(module, spec, pixels, layout)
    with torch.no_grad():
        classes = unknown.count_classes(module, pixels)
    if labels is not None and len(labels) != classes:
        raise ModelError(f"{len(labels)} labels were given for the {classes} classes of {spec}.")
    names = Labels.numbered(classes) if labels is None else Labels(labels)
    return Model(module, spec, preprocess, names, layout or found, anatomy)


def _named(
    prefix: str,
    name: str,
    checkpoint: str | os.PathLike[str] | None,
    pretrained: bool,
    size: Size | None,
) -> Model:
    """A model of a library, by name."""
    reader, spec = family(prefix), f"{prefix}/{name}"
    state: dict[str, Tensor] | None = None
    description: dict[str, Any] = {}
    weights = prefix if pretrained else "random"
    if checkpoint is not None:
        state, description = read_checkpoint(os.fspath(checkpoint))
        weights = os.fspath(checkpoint)
    with weights_only():
        found: Found = reader.build(name, pretrained=pretrained, state=state, size=size)
    return _read(
        found.module,
        spec,
        found.preprocess,
        description.get("classes"),
        weights=weights,
        prompts=found.prompts,
    )


@contextmanager
def _same_random_weights(wanted: bool) -> Iterator[None]:
    """Random weights that are the same each time, whatever torch's default type; that type and the
    caller's generator are as before afterwards."""
    if not wanted:
        yield
        return
    before = torch.get_default_dtype()
    with torch.random.fork_rng():
        try:
            torch.manual_seed(0)
            torch.set_default_dtype(torch.float32)
            yield
        finally:
            torch.set_default_dtype(before)


def _fill_blank_layers(module: nn.Module) -> None:
    """Give linear layers that start at zero small random weights, or every map would be blank."""
    for part in module.modules():
        if isinstance(part, nn.Linear) and not bool(part.weight.any()):
            nn.init.trunc_normal_(part.weight, std=0.02)


def _described(path: Path, spec: str, size: Size | None) -> Model:
    """A model whose safetensors file describes its architecture, labels and preprocessing."""
    module, preprocess, labels = read_described(path, spec, size)
    weights = "bundled" if spec == "demo" else str(path)
    return _read(module, spec, preprocess, labels, weights=weights)


def _labels(reader: Any, module: Any, labels: Sequence[str] | None, name: str) -> Labels:
    classes = reader.count_classes(module)
    if not classes:
        raise ModelError(f"{name} has no classification head (no classes); give it one.")
    if labels is None:
        return reader.read_labels(module, classes)
    if len(labels) != classes:
        raise ModelError(f"{len(labels)} labels were given for the {classes} classes of {name}.")
    return Labels(labels)


def _as_timm(name: str) -> str:
    return f"; did you mean 'timm/{name}'?" if timm.is_model(name) else ""


def _size(given: Any) -> Size | None:
    """An image size as (height, width)."""
    pair = (given, given) if isinstance(given, int) else given
    if pair is None:
        return None
    whole = isinstance(pair, (tuple, list)) and all(type(side) is int for side in pair)
    if not whole or len(pair) != 2 or min(pair) < 1:
        raise ModelError(
            f"image_size={given!r} is no size; give one number of pixels or (height, width)."
        )
    if pair[0] * pair[1] > MAX_PIXELS:
        raise ModelError(
            f"image_size={given!r} is more than {MAX_PIXELS:,} pixels, the limit of pictures; give "
            "a smaller one."
        )
    return pair[0], pair[1]


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
        if found.type == "meta":
            raise RuntimeError("it holds no data")
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ModelError(f"device {str(device)!r} cannot be used: {_first_line(error)}") from None
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["unknown reason"])[0]


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    if dtype is None:
        return torch.float32
    if isinstance(dtype, torch.dtype) and dtype in _DTYPES.values():
        return dtype
    if str(dtype) in _DTYPES:
        return _DTYPES[str(dtype)]
    raise ModelError(f"dtype {str(dtype)!r} cannot be used; choose from {', '.join(_DTYPES)}.")
