"""`load` a model by name, or `wrap` one you have."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from torch import Tensor, nn

from gradtoken.errors import ModelError, did_you_mean
from gradtoken.images.load_image import MAX_PIXELS
from gradtoken.images.preprocess import Preprocess
from gradtoken.models.checkpoint import read_checkpoint
from gradtoken.models.described import read_described
from gradtoken.models.detect_activation import find_activation, refuse_activation
from gradtoken.models.entry import count_channels, with_channels
from gradtoken.models.families import FAMILIES, Found, Size, family, family_of
from gradtoken.models.forks import one_thread_in_forks
from gradtoken.models.hub import weights_only
from gradtoken.models.layout import TokenLayout
from gradtoken.models.model import Model
from gradtoken.models.reading.reading import read
from gradtoken.tap.anatomy import Anatomy
from gradtoken.tap.logits import as_logits
from gradtoken.targets.activation import Activation, check_activation
from gradtoken.targets.labels import Labels, Names
from gradtoken.targets.prompts import Prompts

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
    activation: Activation | None = None,
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
            "open_clip/ARCHITECTURE": a state dict as `.safetensors`, `.pt`, `.pth` or `.bin`, or a
            trainer's checkpoint (`.ckpt`, `.pth.tar`) that holds one under `state_dict`,
            `model_state_dict`, `model` or `module`, rather than its moving averages
            (`state_dict_ema`, `model_ema`), which are taken where they are alone. The number of
            classes is read from it. (Of transformers, name the folder that `save_pretrained` made.)
        pretrained: False builds the architecture with random weights (always the same ones), from
            nothing but its name; "hf/" then also takes model types such as "hf/dinov2".
        image_size: (height, width) in pixels, or one number for both, that pictures are brought to
            instead of the model's own size; its position embeddings are interpolated, as its
            library does.
        activation: how logits become probabilities: "softmax" (one class of all), "sigmoid" (each
            class by itself: multi-label and binary models) or "none" (a regression). None takes
            what the library or the file says (transformers' `problem_type`, `activation` in the
            file's description), sigmoid for one logit, and softmax otherwise.

    Raises:
        ModelError: unknown name, weights that cannot be had, a size that the architecture does not
            take, an activation that does not fit, or a model that cannot be explained.
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
    if activation is not None:
        check_activation(activation)
    if name == "demo":
        with as_file(files("gradtoken.models") / "assets" / "demo.safetensors") as path:
            made = _described(path, "demo", size)
    elif describes_itself(name):
        made = _described(Path(name), name, size)
    elif prefix in FAMILIES and rest:
        with _same_random_weights(not pretrained):
            made = _named(prefix, rest, checkpoint, pretrained, size)
            if not pretrained:
                _fill_blank_layers(made.module)
    else:
        near = did_you_mean(name, ["demo"]) or _as_timm(name)
        usual = "; use demo, timm/NAME, hf/ID, torchvision/NAME, open_clip/NAME/TAG or a file."
        raise ModelError(f"no model is named {name!r}{near or usual}")
    made.module.eval().to(device=_device(device), dtype=_dtype(dtype))
    return _read(made, activation=activation)


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
    and pixels, in about two forwards of one image; a module that was read before is not read again.

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
        activation: how logits become probabilities: "softmax", "sigmoid" or "none"; None finds it
            as `load` does.
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
    module = _unwrapped(module)
    if preprocess is not None and not isinstance(preprocess, Preprocess):
        preprocess = Preprocess(preprocess)
    made = _Made(module, type(module).__name__, preprocess, labels)
    return _read(made, layout=layout, forward=forward, activation=activation, tokenizer=tokenizer)


def _unwrapped(module: nn.Module) -> nn.Module:
    """The module inside `torch.compile`, DataParallel, DistributedDataParallel and PEFT."""
    while True:
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            module = module.module
        elif isinstance(getattr(module, "_orig_mod", None), nn.Module):
            module = module._orig_mod  # type: ignore[assignment]
        elif _is_of(module, "peft") and hasattr(module, "get_base_model"):
            module = module.get_base_model()  # type: ignore[operator]
        else:
            return module


def _is_of(module: nn.Module, package: str) -> bool:
    """Whether a module's class is from a package."""
    return type(module).__module__.partition(".")[0] == package


def _refuse_opaque(module: nn.Module, name: str) -> None:
    """Refuse what hides its attention, has no gradients, or no weights."""
    if any(parameter.is_meta for parameter in module.parameters()):
        raise ModelError(
            f"{name} has parameters without data (on the meta device; accelerate offloads them "
            "so), and cannot be run as a whole; load it wholly on one device, without offloading."
        )
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


@dataclass(frozen=True)
class _Made:
    """A module before it is read; None is what can be read from it."""

    module: nn.Module
    spec: str
    preprocess: Preprocess | None = None
    labels: Names | None = None
    weights: str = "as given"
    prompts: Prompts | None = None
    described: object = None
    """The activation that the file of its weights tells."""


def _read(
    made: _Made,
    *,
    layout: TokenLayout | None = None,
    forward: Callable[[Any, Tensor], Any] | None = None,
    activation: Activation | None = None,
    tokenizer: Any = None,
) -> Model:
    """A module as a `Model`, whose reading is verified."""
    module, spec, preprocess, prompts = made.module, made.spec, made.preprocess, made.prompts
    _refuse_opaque(module, spec)
    reader = family_of(module)
    if reader is None and preprocess is None:
        raise ModelError(
            f"{spec} is a module of no library that gradtoken knows (timm, transformers, "
            "torchvision, open_clip), so its input is not known either; pass "
            "wrap(…, preprocess=…) to have it read by watching it at work."
        )
    anatomy, claimed, unreadable = Anatomy("to be read", ()), TokenLayout(None), None
    if reader is not None:
        try:
            anatomy, claimed = reader.read(module, spec)
        except ModelError as error:
            unreadable = error
        prompts = prompts or reader.read_prompts(module, tokenizer)
    if prompts is None and tokenizer is not None:
        raise ModelError(f"{spec} reads no text, so it has no use for a tokenizer; leave it out.")
    if prompts is not None and made.labels is not None:
        raise ModelError(
            f"{spec} compares images with text and has no classes to label; leave out labels, and "
            "give prompts as targets."
        )
    if forward is not None:
        anatomy = replace(anatomy, forward=partial(_as_told, forward))
    model = Model(
        module=module,
        spec=spec,
        preprocess=_preprocess(reader, module, preprocess),
        labels=Labels([]),
        layout=layout or claimed,
        anatomy=anatomy,
        weights=made.weights,
        prompts=prompts,
    )
    if reader is not None and prompts is None and not reader.count_classes(module):
        raise ModelError(f"{spec} has no classification head (no classes); give it one.")
    model = read(model, given=layout is not None, unreadable=unreadable)
    if prompts:
        refuse_activation(activation, spec)
        return replace(model, activation="none")
    names = _labels(reader, model, made.labels)
    chosen = find_activation(
        module, len(names), asked=activation, described=made.described, spec=spec
    )
    return replace(model, labels=names, activation=chosen)


def _preprocess(reader: Any, module: nn.Module, given: Preprocess | None) -> Preprocess:
    """The user's preprocessing or the library's, for as many channels as the module takes."""
    if reader is None:
        assert given is not None
        return with_channels(given, module)
    channels = count_channels(module)
    if given is not None:
        return given.for_model(channels)
    found: Preprocess = reader.read_preprocess(module).of_library(channels)
    return found.for_model(channels)


def _as_told(forward: Callable[[Any, Tensor], Any], module: nn.Module, images: Tensor) -> Any:
    return as_logits(forward(module, images))


def _named(
    prefix: str,
    name: str,
    checkpoint: str | os.PathLike[str] | None,
    pretrained: bool,
    size: Size | None,
) -> _Made:
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
    return _Made(
        found.module,
        spec,
        found.preprocess and found.preprocess.of_library(count_channels(found.module)),
        description.get("classes"),
        weights=weights,
        prompts=found.prompts,
        described=description.get("activation"),
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


def _described(path: Path, spec: str, size: Size | None) -> _Made:
    """A model whose safetensors file describes its architecture, labels and preprocessing."""
    module, preprocess, labels, described = read_described(path, spec, size)
    weights = "bundled" if spec == "demo" else str(path)
    return _Made(module, spec, preprocess, labels, weights=weights, described=described)


def _labels(reader: Any, model: Model, labels: Names | None) -> Labels:
    """The names of a model's classes: the user's, its library's, or numbers."""
    assert model.reading is not None
    classes = model.reading.outputs
    if labels is not None:
        return Labels.given(labels, classes, model.spec)
    if reader is None:
        return Labels.numbered(classes)
    names: Labels = reader.read_labels(model.module, classes)
    return names


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
