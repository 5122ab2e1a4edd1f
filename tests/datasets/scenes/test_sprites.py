"""The bundled archive: complete, small, openly licensed, with the test style kept apart."""

from __future__ import annotations

import io
import zipfile

import pytest
from PIL import Image

from gradtoken.datasets.scenes import sprites

ALLOWED = {"Apache-2.0", "MIT", "CC-BY-4.0"}


def test_archive_is_at_most_six_megabytes() -> None:
    assert len(sprites.archive_bytes()) <= 6 * 1024 * 1024


def test_every_sprite_has_an_allowed_licence_and_a_recorded_origin() -> None:
    index = sprites.index()
    for sprite in index["sprites"]:
        origin = index["styles"][sprite["style"]]
        assert sprite["licence"] == origin["licence"]
        assert sprite["licence"] in ALLOWED
        assert sprite["icon"]
        assert origin["author"]
        assert origin["project"].startswith("https://")


def test_archive_and_index_agree_and_images_open() -> None:
    with zipfile.ZipFile(io.BytesIO(sprites.archive_bytes())) as archive:
        listed = {sprite["file"] for sprite in sprites.index()["sprites"]}
        assert set(archive.namelist()) == listed | {"index.json"}
        assert archive.namelist() == sorted(archive.namelist())
        for name in sorted(listed)[::40]:
            with Image.open(io.BytesIO(archive.read(name))) as picture:
                assert picture.mode == "RGBA"
                assert 64 <= max(picture.size) <= 128


def test_concepts_are_distinct_and_between_40_and_44() -> None:
    names = sprites.concepts()
    assert len(set(names)) == len(names)
    assert 40 <= len(names) <= 44


def test_every_concept_is_in_the_test_style_and_in_most_training_styles() -> None:
    index = sprites.index()
    for concept in sprites.concepts():
        styles = {s["style"] for s in index["sprites"] if s["concept"] == concept}
        assert index["test_style"] in styles
        assert len(styles - {index["test_style"]}) >= 7


@pytest.mark.parametrize("split", ["train", "test"])
def test_splits_hold_disjoint_styles(split: str) -> None:
    loaded = sprites.load(split)
    assert len(loaded) == len(sprites.concepts())
    styles = {sprite.style for group in loaded for sprite in group}
    test_style = sprites.index()["test_style"]
    if split == "test":
        assert styles == {test_style}
    else:
        assert len(styles) == 9
        assert test_style not in styles
    for label, group in enumerate(loaded):
        assert group
        assert all(sprite.label == label for sprite in group)


def test_level_is_the_smallest_that_is_large_enough() -> None:
    sprite = sprites.load("test")[0][0]
    sizes = [max(sprite.level(extent).image.size) - 2 * sprites.PAD for extent in (20, 60, 300)]
    assert sizes == sorted(sizes)
    assert 20 <= sizes[0] < 60 <= sizes[1]
    assert sizes[2] == max(max(level.image.size) for level in sprite.levels) - 2 * sprites.PAD
