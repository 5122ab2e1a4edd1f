"""What the web app takes from one person, and for how long it keeps it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on what is taken and kept.

    Args:
        file_bytes: of one uploaded file.
        upload_bytes: of all uploads that are not read yet; the oldest makes room.
        pixels: of one picture; larger ones are refused before they are decoded.
        targets: maps of one picture at once.
        prompts: texts of one picture, and `prompt_letters` letters each.
        sessions: how many people's pictures are kept; the one unused for longest goes first.
        kept_pixels: of all pictures kept; a pixel takes three bytes.
        idle_seconds: how long an unused picture is kept.
        waiting: requests that may wait for the model.
        requests_per_minute: of one address that is not on this machine; moving a slider is some.
            None for no limit.
    """

    file_bytes: int = 20_000_000
    upload_bytes: int = 3_000_000_000
    pixels: int = 30_000_000
    targets: int = 8
    prompts: int = 16
    prompt_letters: int = 300
    sessions: int = 128
    kept_pixels: int = 300_000_000
    idle_seconds: float = 1800.0
    waiting: int = 128
    requests_per_minute: int | None = 600
