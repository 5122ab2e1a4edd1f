"""Waiting for what has to come, however busy the machine is; never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx

PATIENCE = 600.0
"""Seconds after which a test gives up. No test that passes comes near it on a loaded machine."""


def until(holds: Callable[[], object], otherwise: str = "it did not come to hold") -> None:
    """Return once a condition holds.

    Args:
        holds: the condition; it may raise AssertionError where it cannot come to hold any more.
        otherwise: what an AssertionError says after `PATIENCE`.
    """
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() < begun + PATIENCE, otherwise
        time.sleep(0.02)


def be_patient_with_servers() -> None:
    """Requests of httpx, gradio's client's too, wait five seconds for an answer by default."""
    for function in (httpx.get, httpx.post, httpx.Client.__init__):
        function.__kwdefaults__["timeout"] = PATIENCE
