"""What a run does not measure, and why."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Exclusions:
    """Images and class names that are left out of a run, collected while a data set is read.

    Args:
        images: number of images left out, by reason.
        names: class names of the data set that are not matched to a class of the model, each with
            the reason.
    """

    images: dict[str, int] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def count_image(self, reason: str) -> None:
        """Count one image that is left out."""
        self.images[reason] = self.images.get(reason, 0) + 1
