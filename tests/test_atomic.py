"""Files appear whole or not at all, and errors name them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from gradtoken import atomic
from gradtoken.errors import ImageError, OutputError


def test_write_bytes_makes_folders_and_leaves_only_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    atomic.write_bytes(path, b"first")
    atomic.write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, ImageError])
def test_writing_keeps_the_earlier_file_on_other_errors(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "file.txt"
    path.write_text("earlier")

    def interrupted() -> None:
        with atomic.writing(path) as temporary:
            temporary.write_text("half")
            raise error("stopped")

    with pytest.raises(error):
        interrupted()
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_writing_yields_an_empty_hidden_file_beside_the_target(tmp_path: Path) -> None:
    with atomic.writing(tmp_path / "map.png") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(atomic.PREFIX)
        assert temporary.suffix == ".png"
        assert temporary.read_bytes() == b""
        with atomic.writing(tmp_path / "map.png") as other:
            assert other != temporary


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, r"^cannot write .*file\.txt: No space left on device\.$"),
        ({"name": "the records"}, r"^cannot write the records: No space left on device\.$"),
        ({"advice": "make room"}, r"No space left on device; make room\.$"),
    ],
)
def test_writing_turns_os_errors_into_output_errors(
    tmp_path: Path, arguments: dict[str, str], words: str
) -> None:
    with (
        pytest.raises(OutputError, match=words),
        atomic.writing(tmp_path / "file.txt", **arguments),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_writing_passes_an_output_error_on(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"^another sentence\.$"),
        atomic.writing(tmp_path / "file.txt"),
    ):
        raise OutputError("another sentence.")


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "file/below"])
def test_writing_rejects_names_no_file_can_have(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        atomic.write_bytes(tmp_path / name, b"")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_write_bytes_syncs_the_file_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, events = tmp_path / "file", []
    fsync, replace = os.fsync, os.replace

    def record_fsync(handle: int) -> None:
        events.append("folder" if os.path.isdir(f"/dev/fd/{handle}") else "file")
        fsync(handle)

    def record_replace(source: Path, target: Path) -> None:
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    atomic.write_bytes(path, b"content")
    assert events == (["file", "rename"] if os.name == "nt" else ["file", "rename", "folder"])


def test_write_bytes_leaves_nothing_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        atomic.write_bytes(tmp_path / "file", b"content")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="folders are not synced there")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_move_needs_no_folder_sync_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fsync = os.fsync

    def no_folders(handle: int) -> None:
        if os.path.isdir(f"/dev/fd/{handle}"):
            raise OSError(number, os.strerror(number))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", no_folders)
    (tmp_path / "a").write_text("content")
    if number == errno.EIO:
        with pytest.raises(OSError, match="error"):
            atomic.move(tmp_path / "a", tmp_path / "b")
    else:
        atomic.move(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "content"
