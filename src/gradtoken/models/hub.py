"""Access to the model hub that does not wait for a missing connection."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlparse
from urllib.request import getproxies

_FORCE, _FORCE_NOT = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def unreachable() -> bool:
    """Whether the hub's name cannot even be looked up."""
    from huggingface_hub import constants

    if getproxies():
        return False
    try:
        socket.getaddrinfo(urlparse(constants.ENDPOINT).hostname, 443)
    except OSError:
        return True
    return False


@contextmanager
def no_retries() -> Iterator[None]:
    """Use only the cache where the hub cannot be reached, whose retries would take a minute."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    if not before and unreachable():
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def weights_only() -> Iterator[None]:
    """`torch.load` reads tensors and never runs code, whichever library calls it and however.

    Cached files are loaded without a check of their hash, and some libraries still unpickle them.
    """
    before = {name: os.environ.pop(name, None) for name in (_FORCE, _FORCE_NOT)}
    os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        del os.environ[_FORCE]
        os.environ.update({name: value for name, value in before.items() if value is not None})


@contextmanager
def quiet() -> Iterator[None]:
    """Suppresses a library's warning that weights are random, where that is requested."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
