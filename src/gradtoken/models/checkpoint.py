"""Reading weights from files, never by running what is in them."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from argparse import Namespace
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gradtoken.errors import ModelError

_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".tar")
_WEIGHTS = ("state_dict", "model_state_dict", "model", "module")
"""Where trainers keep a model's weights in their checkpoints."""
_AVERAGES = ("state_dict_ema", "model_ema")
"""Where they keep their moving averages."""


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a checkpoint, and the gradtoken description in it if there is one.

    Args:
        path: a `.safetensors` file, or a `.pt`, `.pth`, `.ckpt`, `.bin` or `.tar` file that torch
            loads with `weights_only=True`. In a trainer's checkpoint the weights are found under
            `state_dict`, `model_state_dict`, `model` or `module`, and moving averages
            (`state_dict_ema`, `model_ema`) only where there is nothing else.

    Raises:
        ModelError: missing, unreadable, of another kind, or holding no tensors or several models'.
    """
    path = Path(path)
    if os.path.isdir(path):
        raise ModelError(
            f"{path} is a folder, not a checkpoint file; put a sharded checkpoint together with "
            "its trainer's own tool."
        )
    if not os.path.isfile(path):
        raise ModelError(f"there is no checkpoint file {path}; check the path.")
    if path.suffix == ".safetensors":
        state, metadata = _read_safetensors(path)
    elif path.suffix in _SUFFIXES:
        state, metadata = _weights(path, _read_torch(path)), {}
    else:
        raise ModelError(
            f"{path} is no checkpoint by its name; use a .safetensors, .pt, .pth, .ckpt, .bin or "
            ".tar file."
        )
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        held = ", ".join(repr(str(key)) for key in list(state)[:5]) or "nothing"
        raise ModelError(f"{path} holds no tensors (it holds {held}); save model.state_dict().")
    for key, value in tensors.items():
        if not _is_whole(value):
            raise ModelError(
                f"{key!r} in {path} is no plain tensor with numbers of its own (it is sparse, "
                "quantised, nested, without data or repeats one number); save model.state_dict()."
            )
    return tensors, metadata


def _is_whole(tensor: Tensor) -> bool:
    """Whether a tensor is dense and no larger than what is stored for it."""
    plain = tensor.layout == torch.strided and not tensor.is_nested and not tensor.is_quantized
    if not plain or tensor.is_meta:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _read_safetensors(path: Path) -> tuple[Mapping[str, Any], dict[str, Any]]:
    try:
        state = load_file(path)
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("gradtoken", "{}")
        description = json.loads(text)
    except (OSError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path} is no readable safetensors file: {error}.") from None
    return state, description if isinstance(description, dict) else {}


def _read_torch(path: Path) -> Mapping[str, Any]:
    _check_unpacked_size(path)
    try:
        with _settings():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelError(
            f"{path} holds more than tensors{_besides(path)}, and loading it could run code; save "
            "model.state_dict() alone, best as safetensors, or take it out of a file that you "
            "trust: torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'weights.pt')."
        ) from None
    except Exception as error:  # arbitrary bytes make the unpickler raise anything  # noqa: BLE001
        raise ModelError(f"{path} is no readable torch checkpoint: {error}.") from None
    if not isinstance(content, Mapping):
        raise ModelError(f"{path} holds a {type(content).__name__}, not a state dict.")
    return content


def _settings() -> AbstractContextManager[Any]:
    """Lets argparse's plain record of settings, which trainers save beside weights, be read."""
    allow = getattr(torch.serialization, "safe_globals", None)  # torch 2.5 and newer
    return allow([Namespace]) if allow else nullcontext()


def _besides(path: Path) -> str:
    """What a file holds beside tensors, in brackets, where it can be told without loading it."""
    try:
        globals_ = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # a file of another format, or damaged  # noqa: BLE001
        return ""
    kinds = sorted(set(globals_) - {f"{Namespace.__module__}.{Namespace.__name__}"})
    return f" ({', '.join(kinds[:3])})" if kinds else ""


def _weights(path: Path, content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state dict in a trainer's checkpoint, or the content itself.

    Raises:
        ModelError: if there are several, so that it is not known which one is meant.
    """
    keys = [key for key in (*_WEIGHTS, *_AVERAGES) if _holds_tensors(content.get(key))]
    plain = [key for key in keys if key in _WEIGHTS] or keys
    if len(plain) > 1:
        raise ModelError(
            f"{path} holds several sets of weights ({', '.join(plain)}); save the one you mean "
            "alone."
        )
    return content[plain[0]] if plain else content


def _holds_tensors(part: Any) -> bool:
    return isinstance(part, Mapping) and any(isinstance(value, Tensor) for value in part.values())


def _check_unpacked_size(path: Path) -> None:
    """See that an archive does not unpack to more than the file holds.

    torch.save stores tensors as they are; compressed or overlapping parts can be a few bytes that
    become gigabytes.

    Raises:
        ModelError: if it does.
    """
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ModelError(f"{path} is no readable torch checkpoint: {error}.") from None
    if unpacked > path.stat().st_size:
        raise ModelError(
            f"{path} would unpack to {unpacked:,} bytes, more than it holds; save it anew with "
            "torch.save, which does not compress."
        )


_WRAPPERS = frozenset(["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
"""Names that torch.compile, FSDP and activation checkpointing put in front of a module's own."""
_DEEPEST = 8


def own_names(state: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """A state dict under an architecture's own names.

    Trainers put names in front (`module.` of DataParallel, `model.` or `net.` of Lightning). One is
    dropped where every tensor has it and more names are the architecture's without it; what
    torch.compile, FSDP and activation checkpointing put in is dropped wherever it is.

    Args:
        state: as it was read.
        own: the names of the architecture's tensors.
    """
    best = dict(state)
    bare = {_without_wrappers(key): value for key, value in state.items()}
    if len(bare) < len(best):
        return best
    for _ in range(_DEEPEST):
        if sum(key in own for key in bare) > sum(key in own for key in best):
            best = bare
        fronts = {key.partition(".")[0] if "." in key else "" for key in bare}
        if len(fronts) != 1 or fronts == {""}:
            break
        bare = {key.partition(".")[2]: value for key, value in bare.items()}
    return best


def _without_wrappers(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in _WRAPPERS)


def check_fit(module: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """See that a state dict has a module's tensors in their shapes, and no others.

    Raises:
        ModelError: saying in one sentence what does not fit.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    unknown = [key for key in state if key not in own]
    problems = []
    if missing:
        problems.append(f"it lacks {missing[0]!r} ({len(missing)} missing)")
    if unknown:
        problems.append(f"it has {unknown[0]!r}, which the model has not ({len(unknown)} so)")
    for key in own:
        if key in state and state[key].shape != own[key].shape:
            theirs, ours = tuple(state[key].shape), tuple(own[key].shape)
            problems.append(f"{key} is {theirs}, the model's {ours}")
            break
    if problems:
        raise ModelError(
            f"the checkpoint does not fit {name}: {'; '.join(problems)}; name the architecture it "
            "was trained with."
        )


def fit(module: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load a state dict strictly.

    Raises:
        ModelError: saying in one sentence what does not fit.
    """
    check_fit(module, state, name)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        last = (str(error).strip().splitlines() or ["no reason given"])[-1].strip()
        raise ModelError(f"the weights of the checkpoint do not go into {name}: {last}") from None
