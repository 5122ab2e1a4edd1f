"""Images in tables."""

from __future__ import annotations

import csv
from pathlib import Path

from gradtoken.batch.sources.fetch import fetch
from tests.batch.conftest import list_source, read_contents, write_parquet


def test_list_parquet_with_bytes(tmp_path: Path, contents: list[bytes]) -> None:
    path = write_parquet(tmp_path / "p.parquet", contents)
    items = list_source(path, id="key", targets="label")
    assert [item.id for item in items] == [f"k{i}" for i in range(10)]
    assert [item.targets for item in items] == [str(i % 3) for i in range(10)]
    assert read_contents(items) == contents
    assert read_contents(items[5:8]) == contents[5:8]
    assert [item.id for item in list_source(path)][:2] == ["p.parquet#0", "p.parquet#1"]


def test_list_csv_keeps_paths_inside_the_folder(folder: Path, contents: list[bytes]) -> None:
    rows = ["005.png", "b/007.png", str(folder / "006.png"), "../outside.png", "/etc/passwd", ""]
    path = folder / "list.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["path", "class"], *((row, "banana") for row in rows)])
    items = list_source(path, targets="class")
    assert {item.targets for item in items} == {'"banana"'}
    assert read_contents(items[:3]) == [contents[5], contents[7], contents[6]]
    for item, words in zip(items[3:], ("leads out", "leads out", "names no image"), strict=True):
        ((_, error),) = fetch([item], {}, None)
        assert words in str(error)
