"""Asking the model hub without waiting for a connection that is not there."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlparse
from urllib.request import getproxies


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
    """Look into the cache only where the hub cannot be reached; its retries take a minute."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    if not before and unreachable():
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def quiet() -> Iterator[None]:
    """Without a library's warning that weights are random, where they are asked to be."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
