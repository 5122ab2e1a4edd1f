"""The bundled scenes as samples."""

from __future__ import annotations

from typing import ClassVar

from gradtoken.datasets.sample import Sample, Samples
from gradtoken.datasets.scenes.scenes import Scene, Scenes


class SceneSamples(Samples):
    """The first `count` of the bundled scenes; each object is of another class.

    Args:
        scenes: the scenes; None is the test split with two or three objects.
        count: how many; practically endless by default.
    """

    kind: ClassVar[str] = "scenes"

    def __init__(self, scenes: Scenes | None = None, *, count: int = 1 << 40) -> None:
        self._scenes = scenes or Scenes("test", objects=(2, 3))
        self._count = count

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return self._scenes.classes

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        return scene_sample(index, self._scenes[self.checked_index(index)])


def scene_sample(index: int, scene: Scene) -> Sample:
    """The scene at a position as a sample."""
    return Sample(f"scene-{index:06d}", scene.image, scene.names, scene.masks)
