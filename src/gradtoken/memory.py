"""What memory there is, and what a forward keeps of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from gradtoken.trace import Trace

_MEMINFO = Path("/proc/meminfo")


def kept_bytes(trace: Trace) -> int:
    """Bytes that a trace keeps of its forward's attention calls."""
    calls = [call for one in trace.backbones for call in one.calls]
    parts = (p for call in calls for p in (call.query, call.key, call.value, call.output))
    storages = [part.untyped_storage() for part in parts if part is not None]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be had on a device, what torch holds in reserve included."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if _MEMINFO.exists():
        lines = (line.split() for line in _MEMINFO.read_text().splitlines())
        return 1024 * next(int(line[1]) for line in lines if line[0] == "MemAvailable:")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
