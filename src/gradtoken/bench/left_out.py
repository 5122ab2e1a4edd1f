"""What a run does not measure, and why."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class LeftOut:
    """Counted while a data set is gone through.

    Args:
        images: how many are left out, by reason.
        names: of the data set, those that are not looked up among the model's classes, and why.
    """

    images: dict[str, int] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def image(self, reason: str) -> None:
        """Count one image."""
        self.images[reason] = self.images.get(reason, 0) + 1
