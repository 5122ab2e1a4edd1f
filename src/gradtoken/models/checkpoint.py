"""Reading weights from files, never by running what is in them."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gradtoken.errors import ModelError

_WRAPPERS = ("module.", "_orig_mod.")
_NESTED = ("state_dict_ema", "model_ema", "state_dict", "model")


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a checkpoint, and the gradtoken description in it if there is one.

    Args:
        path: a `.safetensors` file, or a `.pt`/`.pth`/`.bin` file that torch loads with
            `weights_only=True`; a training checkpoint's state_dict is found inside it, moving
            averages first, and prefixes left by DataParallel or torch.compile are dropped.

    Raises:
        ModelError: missing, unreadable, of another kind, or holding no tensors.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise ModelError(f"there is no checkpoint file {path}; check the path.")
    if path.suffix == ".safetensors":
        state, metadata = _read_safetensors(path)
    elif path.suffix in (".pt", ".pth", ".bin"):
        state, metadata = _read_torch(path), {}
    else:
        raise ModelError(
            f"{path} is no checkpoint by its name; use a .safetensors, .pt, .pth or .bin file."
        )
    tensors = {_plain(str(key)): value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ModelError(f"{path} holds no tensors; save model.state_dict().")
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
    _refuse_bomb(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelError(
            f"{path} holds more than tensors, and loading it could run code; save only "
            "model.state_dict(), best as safetensors."
        ) from None
    except Exception as error:  # arbitrary bytes make the unpickler raise anything
        raise ModelError(f"{path} is no readable torch checkpoint: {error}.") from None
    for key in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise ModelError(f"{path} holds a {type(content).__name__}, not a state dict.")
    return content


def _refuse_bomb(path: Path) -> None:
    """Refuse an archive whose parts would unpack to more than the file holds.

    torch.save stores tensors as they are; compressed or overlapping parts can be a few bytes that
    become gigabytes.

    Raises:
        ModelError: saying so.
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


def _plain(key: str) -> str:
    while key.startswith(_WRAPPERS):
        key = key.partition(".")[2]
    return key


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
