"""Uploads are read once, within limits, and deleted; scenes are what they are called."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from gradtoken.app.limits import Limits
from gradtoken.app.pictures import SCENES, Shown, Uploads, scene, scene_source
from gradtoken.errors import ImageError
from gradtoken.images.box import Box
from gradtoken.models import Model

SMALL = Limits(file_bytes=100_000, pixels=10_000, idle_seconds=60)


@pytest.fixture
def arrived(tmp_path: Path) -> Path:
    """Where a file lies that came by upload: in a folder of its own."""
    folder = tmp_path / "uploads" / "0a1b2c"
    folder.mkdir(parents=True)
    return folder


def take(path: Path, limits: Limits = SMALL) -> object:
    return Uploads(path.parents[1], limits).take(str(path))


def test_take_reads_and_deletes_upload(arrived: Path) -> None:
    path = arrived / "my cat.jpg"
    Image.new("RGB", (40, 30), "red").save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    source = Uploads(arrived.parent, SMALL).take(str(path))
    assert source.image.size == (40, 30)
    assert source.name == "my cat.jpg"
    assert source.to_dict()["file"] == "my cat.jpg"
    assert source.sha256 == digest
    assert list(arrived.parent.iterdir()) == []


def test_take_deletes_rejected_upload(arrived: Path) -> None:
    def refused(name: str, words: str) -> None:
        with pytest.raises(ImageError, match=words) as caught:
            take(arrived / name)
        assert str(arrived) not in str(caught.value)
        assert list(arrived.parent.iterdir()) == []
        arrived.mkdir()

    (arrived / "notes.png").write_text("a text")
    refused("notes.png", "^notes.png is not a picture that is read here; use PNG")
    (arrived / "empty.png").touch()
    refused("empty.png", "^empty.png is not a picture")
    (arrived / "page.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    refused("page.svg", "^page.svg is not a picture")
    (arrived / "script.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    refused("script.png", "^script.png is not a picture")
    (arrived / "heavy.png").write_bytes(bytes(100_001))
    refused("heavy.png", "^heavy.png has 0.1 MB, above the limit of 0 MB; make it smaller")
    Image.new("L", (200, 51)).save(arrived / "large.png")
    refused("large.png", "^large.png has 200x51 pixels, above the limit of 10,000")
    Image.effect_noise((90, 90), 50).save(arrived / "cut.png")
    (arrived / "cut.png").write_bytes((arrived / "cut.png").read_bytes()[:3000])
    refused("cut.png", "^cut.png is damaged or truncated")


def test_take_counts_pixels_before_decoding(arrived: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(self: Image.Image) -> None:
        raise AssertionError("it was decoded")

    for size in ((8000, 6250), (20_000, 20_000)):
        path = arrived / "huge.png"
        arrived.mkdir(exist_ok=True)
        with monkeypatch.context() as patch:
            patch.setattr(Image, "MAX_IMAGE_PIXELS", None)
            Image.new("1", size).save(path)
        with monkeypatch.context() as patch:
            patch.setattr("PIL.ImageFile.ImageFile.load", decode)
            with pytest.raises(ImageError, match=r"huge\.png has (\d+x\d+|more) pixels"):
                take(path, Limits())


def test_take_rejects_files_outside_folder(arrived: Path, tmp_path: Path) -> None:
    outside = tmp_path / "secret.png"
    Image.new("RGB", (4, 4)).save(outside)
    (arrived / "link.png").symlink_to(outside)
    for path in (str(outside), f"{arrived}/../../secret.png", f"{arrived}/link.png", "", "none"):
        with pytest.raises(ImageError, match="not there any more"):
            Uploads(arrived.parent, SMALL).take(path)
    assert outside.exists()


def test_take_rejects_invalid_paths(arrived: Path) -> None:
    uploads = Uploads(arrived.parent, SMALL)
    for path in ("a\0b", str(arrived / ("x" * 5000)), "", str(arrived)):
        uploads.discard(path)
        with pytest.raises(ImageError, match="not there any more"):
            uploads.take(path)


def test_take_upload_requested_twice(arrived: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = arrived / "a.png"
    Image.new("RGB", (4, 4)).save(path)
    uploads, check = Uploads(arrived.parent, SMALL), Uploads._check_format

    def gone_meanwhile(file: Path) -> None:
        check(file)
        uploads.discard(str(file))

    monkeypatch.setattr(Uploads, "_check_format", staticmethod(gone_meanwhile))
    with pytest.raises(ImageError, match="not there any more"):
        uploads.take(str(path))
    assert list(arrived.parent.iterdir()) == []


def test_discard_deletes_unread_upload(arrived: Path) -> None:
    (arrived / "a.png").write_bytes(b"whatever")
    Uploads(arrived.parent, SMALL).discard(str(arrived / "a.png"))
    assert list(arrived.parent.iterdir()) == []


def test_sweep_deletes_old_uploads(arrived: Path) -> None:
    old, new = arrived.parent / "old", arrived.parent / "new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "left.png").touch()
    stray = arrived.parent / "tmp123"
    stray.touch()
    for path in (old, stray):
        os.utime(path, (time.time() - 61, time.time() - 61))
    Uploads(arrived.parent, SMALL).sweep()
    assert sorted(arrived.parent.iterdir()) == [arrived, new]


def test_shown_is_small_and_has_its_box() -> None:
    shown = Shown.of(Image.new("RGB", (1280, 640)), Box(320, 0, 960, 640))
    assert shown.picture.size == (640, 320)
    assert shown.box == Box(160, 0, 480, 320)


def test_scenes_are_recognised_by_demo(demo: Model) -> None:
    for index in range(len(SCENES)):
        source = scene_source(index)
        found = demo(demo.preprocess(source.image)[None])
        count = len(scene(index).labels)
        hits = set(scene(index).labels) & set(torch.topk(found[0], count + 1).indices.tolist())
        assert len(hits) >= count - 1, index
    with pytest.raises(ImageError, match="there is no scene 6"):
        scene(6)


def test_uploads_over_limit_are_deleted_oldest_first(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, Limits(upload_bytes=250))
    for age in (1, 2, 3):
        file = tmp_path / f"folder{age}" / "a.png"
        file.parent.mkdir()
        file.write_bytes(bytes(100))
        os.utime(file.parent, (time.time() - age, time.time() - age))
    uploads.sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder1", "folder2"]
    uploads.sweep()
    assert len(list(tmp_path.iterdir())) == 2
