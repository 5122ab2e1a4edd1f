"""Freed memory goes back to the system."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from gradtoken.app import memory

STATUS = Path("/proc/self/statm")


def resident() -> int:
    return int(STATUS.read_text().split()[1]) * 4096


@pytest.mark.skipif(not STATUS.exists(), reason="needs /proc")
def test_give_back_returns_scattered_memory() -> None:
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("the C library is not glibc")
    kept = [bytearray(b"x" * 60_000) for _ in range(4000)]
    ends = kept[::200]
    del kept
    before = resident()
    assert memory.give_back()
    assert resident() < before - 100_000_000
    assert len(ends) == 20


def test_give_back_does_nothing_without_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert memory.give_back() is False
