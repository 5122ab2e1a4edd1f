"""Every kind of source lists its images once, in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradtoken.errors import DatasetError
from tests.batch.conftest import list_source, read_contents, write_hf, write_parquet


def test_folder_is_listed_recursively_in_order(folder: Path, contents: list[bytes]) -> None:
    items = list_source(folder)
    assert [item.id for item in items][-4:] == ["006.png", "b/007.png", "b/008.png", "b/009.png"]
    assert len(items) == len(contents)
    assert read_contents(items)[5:] == contents[5:]
    assert [item.id for item in list_source(f"{folder}/b/*.png")] == [
        "007.png",
        "008.png",
        "009.png",
    ]
    assert [item.id for item in list_source(f"{folder}/{{002..003}}.png")] == ["002.png", "003.png"]


def test_hugging_face_folder_with_and_without_splits(tmp_path: Path, contents: list[bytes]) -> None:
    path = write_hf(tmp_path / "hf", contents, ["banana", "rocket", "panda"])
    items = list_source(path, targets="label")
    assert [item.targets for item in items][:4] == ['"banana"', '"rocket"', '"panda"', '"banana"']
    assert read_contents(items) == contents
    both = tmp_path / "splits"
    both.mkdir()
    write_hf(both / "train", contents[:3], ["a"])
    write_hf(both / "test", contents[3:], ["a"])
    (both / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    items = list_source(both)
    assert [item.id for item in items][2:4] == ["train/0#2", "test/0#0"]
    assert read_contents(items) == contents
    (both / "dataset_dict.json").write_text('{"splits": ["../hf"]}')
    with pytest.raises(DatasetError, match="no folder names"):
        list_source(both)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p / "none", "none cannot be read: it does not exist"),
        (lambda p: p, "no image, tar file, Parquet file"),
        (lambda p: f"{p}/*.png", "no file matches"),
        (lambda p: _write(p / "a.parquet", b"PAR1 but damaged"), "no readable Parquet file"),
        (lambda p: _write(p / "a.tar", b"x" * 2000), "no readable tar file"),
        (lambda p: _write(p / "a.csv", b"name\n1\n"), "which column of"),
        (lambda p: _write(p / "a.xyz", b""), "no source by its name"),
        (lambda p: f"{p}/{{9..1}}.png", "runs backwards"),
        (lambda p: "nosuch://a", "nosuch://a cannot be opened"),
    ],
)
def test_list_items_rejects_invalid_sources(tmp_path: Path, make: object, words: str) -> None:
    with pytest.raises(DatasetError, match=words.replace("*", r"\*")):
        list_source(make(tmp_path))  # type: ignore[operator]


def test_list_items_rejects_unknown_columns_and_kinds(
    tmp_path: Path, contents: list[bytes]
) -> None:
    path = write_parquet(tmp_path / "p.parquet", contents)
    with pytest.raises(DatasetError, match=r"no column 'lable' .*did you mean 'label'"):
        list_source(path, targets="lable")
    with pytest.raises(DatasetError, match="--kind 'zip' is unknown"):
        list_source(path, "zip")


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
