"""Memory that is free, back to the system."""

from __future__ import annotations

import ctypes


def give_back() -> bool:
    """Return what the C library keeps of freed memory; False where it has no way to (not glibc).

    Pictures and tensors of all sizes come and go in a server. glibc keeps what they leave between
    others and does not return it by itself, so the process would grow for hours.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return False
    return bool(trim(0))
