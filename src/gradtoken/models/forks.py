"""Worker processes made by fork.

Of a parent's threads none are in its fork. OpenMP does not know that and waits for them for ever,
and a lock that one of them held stays locked. So the first thing that gradtoken does in a fork is
to have torch work with one thread, as torch's own data loaders do.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

_forked = False


def after_fork(renew: Callable[[], None]) -> None:
    """Have a function called in every process that is forked from this one."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)


def one_thread_in_forks() -> None:
    """Call it before any work with tensors; it does something once, in a forked process."""
    global _forked
    if _forked:
        _forked = False
        torch.set_num_threads(1)


def _note() -> None:
    global _forked
    _forked = True


after_fork(_note)
