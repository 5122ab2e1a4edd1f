"""Every kind of source lists its pictures once, in order, with their bytes."""

from __future__ import annotations

import csv
import hashlib
import os
from pathlib import Path

import pytest

from gradtoken.batch import Columns, Source
from gradtoken.batch.sources.fetch import fetch
from gradtoken.batch.sources.item import Item
from gradtoken.batch.sources.listing import list_items
from gradtoken.errors import DatasetError, ImageError
from tests.batch.conftest import table, tar, write_hf, write_parquet


def listed(spec: Path | str, kind: str | None = None, **columns: str) -> list[Item]:
    return list(list_items(Source(str(spec), kind, Columns(**columns))))


def read(items: list[Item]) -> list[bytes]:
    found = [content for _, content in fetch(items, {}, None)]
    assert not [content for content in found if isinstance(content, ImageError)]
    return found


def test_a_folder_is_read_below_and_in_order(folder: Path, contents: list[bytes]) -> None:
    items = listed(folder)
    assert [item.id for item in items][-4:] == ["006.png", "b/007.png", "b/008.png", "b/009.png"]
    assert len(items) == len(contents)
    assert read(items)[5:] == contents[5:]
    assert [item.id for item in listed(f"{folder}/b/*.png")] == ["007.png", "008.png", "009.png"]
    assert [item.id for item in listed(f"{folder}/{{002..003}}.png")] == ["002.png", "003.png"]


def test_tar_shards_with_their_classes(tmp_path: Path, contents: list[bytes]) -> None:
    for part in range(2):
        members = []
        for index in range(part * 5, part * 5 + 5):
            members.append((f"s/{index:04d}.png", contents[index]))
            members.append((f"s/{index:04d}.cls", str(index).encode()))
        tar(tmp_path / f"train-{part}.tar", members)
    for spec in (tmp_path, f"{tmp_path}/train-{{0..1}}.tar"):
        items = listed(spec, targets="cls")
        assert [item.id for item in items][4:6] == [
            "train-0.tar/s/0004.png",
            "train-1.tar/s/0005.png",
        ]
        assert [item.targets for item in items] == [f'"{i}"' for i in range(10)]
        assert read(items) == contents


def test_a_tar_file_can_lead_nowhere_outside(tmp_path: Path, contents: list[bytes]) -> None:
    """Names are only names: nothing is unpacked."""
    path = tar(tmp_path / "odd.tar", [("../../up.png", contents[0]), ("/etc/a.png", contents[1])])
    items = listed(path)
    assert [item.id for item in items] == ["odd.tar/../../up.png", "odd.tar//etc/a.png"]
    assert {item.file for item in items} == {str(path)}
    assert read(items) == contents[:2]


def test_parquet_with_bytes(tmp_path: Path, contents: list[bytes]) -> None:
    path = write_parquet(tmp_path / "p.parquet", contents)
    items = listed(path, id="key", targets="label")
    assert [item.id for item in items] == [f"k{i}" for i in range(10)]
    assert [item.targets for item in items] == [str(i % 3) for i in range(10)]
    assert read(items) == contents
    assert read(items[5:8]) == contents[5:8]
    assert [item.id for item in listed(path)][:2] == ["p.parquet#0", "p.parquet#1"]


def test_hugging_face_folders(tmp_path: Path, contents: list[bytes]) -> None:
    path = write_hf(tmp_path / "hf", contents, ["banana", "rocket", "panda"])
    items = listed(path, targets="label")
    assert [item.targets for item in items][:4] == ['"banana"', '"rocket"', '"panda"', '"banana"']
    assert read(items) == contents
    both = tmp_path / "splits"
    both.mkdir()
    write_hf(both / "train", contents[:3], ["a"])
    write_hf(both / "test", contents[3:], ["a"])
    (both / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    items = listed(both)
    assert [item.id for item in items][2:4] == ["train/0#2", "test/0#0"]
    assert read(items) == contents
    (both / "dataset_dict.json").write_text('{"splits": ["../hf"]}')
    with pytest.raises(DatasetError, match="no folder names"):
        listed(both)


def test_a_manifest_of_paths_stays_in_its_folder(folder: Path, contents: list[bytes]) -> None:
    rows = ["005.png", "b/007.png", str(folder / "006.png"), "../outside.png", "/etc/passwd", ""]
    path = folder / "list.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["path", "class"], *((row, "banana") for row in rows)])
    items = listed(path, targets="class")
    assert {item.targets for item in items} == {'"banana"'}
    assert read(items[:3]) == [contents[5], contents[7], contents[6]]
    for item, words in zip(items[3:], ("leads out", "leads out", "names no picture"), strict=True):
        ((_, error),) = fetch([item], {}, None)
        assert words in str(error)


def test_other_file_systems(tmp_path: Path, contents: list[bytes]) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/batch-test/a.png", contents[0])
    memory.pipe("/batch-test/b.png", contents[1])
    assert read(listed("memory://batch-test")) == contents[:2]
    memory.rm("/batch-test", recursive=True)


def test_pictures_that_changed_or_went_are_errors(folder: Path) -> None:
    items = listed(folder)
    (folder / "000.png").write_bytes(b"shorter")
    (folder / "001.png").unlink()
    found = [content for _, content in fetch(items[:2], {}, None)]
    assert "has changed since the run was planned" in str(found[0])
    assert "does not exist" in str(found[1])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    found = [content for _, content in fetch(listed(tmp_path), {}, None)]
    assert len(found) == 2
    assert all("is a pipe, device or folder" in str(one) for one in found)
    for name in ("a.tar", "a.parquet", "a.csv"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DatasetError, match="is a pipe, device or folder"):
            listed(tmp_path / name)
    (tmp_path / "hf").mkdir()
    os.mkfifo(tmp_path / "hf" / "state.json")
    with pytest.raises(DatasetError, match="lists no data files"):
        listed(tmp_path / "hf")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p / "none", "none cannot be read: it does not exist"),
        (lambda p: p, "no picture, tar file, Parquet file"),
        (lambda p: f"{p}/*.png", "no file matches"),
        (lambda p: _write(p / "a.parquet", b"PAR1 but damaged"), "no readable Parquet file"),
        (lambda p: _write(p / "a.tar", b"x" * 2000), "no readable tar file"),
        (lambda p: _write(p / "a.csv", b"name\n1\n"), "which column of"),
        (lambda p: _write(p / "a.xyz", b""), "no source by its name"),
        (lambda p: f"{p}/{{9..1}}.png", "runs backwards"),
        (lambda p: "nosuch://a", "nosuch://a cannot be opened"),
    ],
)
def test_what_is_no_source_is_refused(tmp_path: Path, make: object, words: str) -> None:
    with pytest.raises(DatasetError, match=words.replace("*", r"\*")):
        listed(make(tmp_path))  # type: ignore[operator]


def test_unknown_columns_and_kinds_are_refused(tmp_path: Path, contents: list[bytes]) -> None:
    path = write_parquet(tmp_path / "p.parquet", contents)
    with pytest.raises(DatasetError, match=r"no column 'lable' .*did you mean 'label'"):
        listed(path, targets="lable")
    with pytest.raises(DatasetError, match="--kind 'zip' is unknown"):
        listed(path, "zip")


def test_damage_inside_a_table_is_an_error_of_its_pictures(
    tmp_path: Path, contents: list[bytes]
) -> None:
    from pyarrow import parquet

    path = tmp_path / "p.parquet"
    whole = table(contents)
    parquet.write_table(whole, path, row_group_size=5, compression="NONE", use_dictionary=False)
    items = listed(path)
    damaged = path.read_bytes().replace(
        contents[7][:200], hashlib.sha256(b"").digest() * 6 + b"12345678"
    )
    path.write_bytes(damaged)
    found = [content for _, content in fetch(items, {}, None)]
    assert found[:5] == contents[:5]
    assert found[7] != contents[7]


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
