"""Worker processes made by fork.

A forked process has none of its parent's threads. OpenMP would wait for them for ever, and a lock
that one of them held stays locked. So in a forked process torch is set to one thread before any
work, as torch's own data loaders do.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

_forked = False


def after_fork(reset: Callable[[], None]) -> None:
    """Call a function in every process that is forked from this one."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=reset)


def one_thread_in_forks() -> None:
    """Set torch to one thread in a forked process, once. Call it before any work with tensors."""
    global _forked  # noqa: PLW0603
    if _forked:
        _forked = False
        torch.set_num_threads(1)


def _mark_forked() -> None:
    global _forked  # noqa: PLW0603
    _forked = True


after_fork(_mark_forked)
