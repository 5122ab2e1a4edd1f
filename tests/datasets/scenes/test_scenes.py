"""Scenes: reproducible, with exact masks and clear errors."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import gradtoken.datasets.scenes.scenes as module
from gradtoken.datasets import Scene, Scenes
from gradtoken.datasets.scenes.canvas import VISIBLE, Canvas
from gradtoken.datasets.scenes.sprites import LEVELS, PAD, Level, Sprite
from tests.waiting import PATIENCE

DIGEST = """
import hashlib, sys
sys.path[:0] = {path!r}
from gradtoken.datasets import Scenes
scene = Scenes({split!r}, 64, 3, seed=5)[11]
digest = hashlib.sha256(scene.image.tobytes() + scene.masks.tobytes() + bytes(scene.labels))
print(digest.hexdigest(), "torch" in sys.modules)
"""


def digest(scene: Scene) -> str:
    content = scene.image.tobytes() + scene.masks.tobytes() + bytes(scene.labels)
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("split", ["train", "test"])
def test_same_index_same_scene_in_any_order(split: str) -> None:
    scenes = Scenes(split, 64)
    forward = [digest(scenes[index]) for index in range(8)]
    backward = [digest(Scenes(split, 64)[index]) for index in reversed(range(8))]
    assert forward == backward[::-1]
    assert len(set(forward)) == 8


def test_iteration_yields_the_indexed_scenes() -> None:
    scenes = Scenes(size=64)
    taken = [digest(scene) for scene in itertools.islice(scenes, 5)]
    assert taken == [digest(scenes[index]) for index in range(5)]


def test_fresh_process_draws_the_same_scene() -> None:
    code = DIGEST.format(path=[path for path in sys.path if path], split="test")
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert run.stdout.split()[0] == digest(Scenes("test", 64, 3, seed=5)[11])


def test_seed_and_split_change_the_scene() -> None:
    scene = Scenes("test", 64)[3]
    assert digest(scene) != digest(Scenes("test", 64, seed=1)[3])
    assert digest(scene) != digest(Scenes("train", 64)[3])


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("objects", [1, 5, (2, 3)])
def test_objects_labels_and_masks(split: str, objects: int | tuple[int, int]) -> None:
    low, high = (objects, objects) if isinstance(objects, int) else objects
    scenes = Scenes(split, 112, objects)
    for index in range(12):
        scene = scenes[index]
        count = len(scene.labels)
        assert low <= count <= high
        assert len(set(scene.labels)) == count
        assert scene.names == tuple(scenes.classes[label] for label in scene.labels)
        assert scene.image.mode == "RGB"
        assert scene.image.size == (112, 112)
        assert scene.masks.shape == (count, 112, 112)
        assert scene.masks.dtype == bool
        assert scene.masks.sum(0).max() == 1
        assert scene.masks.sum((1, 2)).min() >= 20


def test_range_of_objects_is_used_in_full() -> None:
    counts = {len(Scenes(size=64, objects=(1, 3))[index].labels) for index in range(30)}
    assert counts == {1, 2, 3}


def test_masks_are_visible_opaque_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flat squares of one colour per class: the image itself then shows what is visible.

    Only soft edges differ: one edge mixes at most half of another colour in, two at most 3/4.
    """
    monkeypatch.setattr(module, "background", lambda rng, size: np.zeros((size,) * 2 + (3,), "u1"))
    flat = tuple((flat_sprite(label),) for label in range(5))
    monkeypatch.setattr(module, "load", lambda split: flat)
    scenes = Scenes("test", 112, (2, 5))
    for index in range(20):
        scene = scenes[index]
        pixels = np.asarray(scene.image).astype(int)
        for label, mask in zip(scene.labels, scene.masks, strict=True):
            distance = np.abs(pixels[mask] - colour_of(label)).max(axis=1)
            assert (distance <= 192).all()
            assert (distance <= 128).mean() > 0.98
            assert (distance <= 1).mean() > 0.8
        assert (pixels[~scene.masks.any(0)].max(axis=1) <= 192).all()


def colour_of(label: int) -> np.ndarray:
    """A saturated colour, (3,)."""
    return np.array([label + 1 & 1, (label + 1) >> 1 & 1, (label + 1) >> 2 & 1]) * 255


def flat_sprite(label: int) -> Sprite:
    """A square of one colour at every level."""
    levels = []
    for size in LEVELS:
        picture = Image.new("RGBA", (size + 2 * PAD, size + 2 * PAD))
        picture.paste((*colour_of(label).tolist(), 255), (PAD, PAD, size + PAD, size + PAD))
        levels.append(Level(picture, None))
    return Sprite(label, "flat", tuple(levels))


def test_objects_stay_mostly_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    areas: list[int] = []
    add = Canvas.add

    def spy(self: Canvas, rng, sprite, extent) -> None:
        add(self, rng, sprite, extent)
        areas.append(self.areas[-1])

    monkeypatch.setattr(Canvas, "add", spy)
    scenes = Scenes("test", 112, 5)
    for index in range(15):
        areas.clear()
        visible = scenes[index].masks.sum((1, 2))
        assert (visible >= VISIBLE * np.array(areas)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "val"}, "split='val' is unknown"),
        ({"size": 8}, "size=8 is not valid"),
        ({"size": 112.0}, "size=112.0 is not valid"),
        ({"objects": 0}, "objects=0 is not valid"),
        ({"objects": 6}, "objects=6 is not valid"),
        ({"objects": (3, 1)}, r"objects=\(3, 1\) is not valid"),
        ({"objects": "many"}, "objects='many' is not valid"),
        ({"objects": True}, "objects=True is not valid"),
        ({"seed": -1}, "seed=-1 is not valid"),
        ({"extent": (0.5, 0.2)}, r"extent=\(0.5, 0.2\) is not valid"),
        ({"extent": 0.4}, "extent=0.4 is not valid"),
    ],
)
def test_scenes_reject_invalid_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Scenes(**arguments)
    text = str(caught.value)
    assert " because " in text
    assert "; use " in text
    assert text.endswith(".")


@pytest.mark.parametrize("index", [-1, 1.5, "3"])
def test_scenes_reject_invalid_index(index: object) -> None:
    with pytest.raises(IndexError, match="use a whole number"):
        Scenes()[index]
