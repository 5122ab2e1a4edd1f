"""The targets of a job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import gradtoken
from gradtoken.batch import Columns, Source, TargetSpec
from gradtoken.errors import TargetError
from tests.batch.conftest import JOB, start, write_parquet


def test_column_names_the_targets_of_each_image(tmp_path: Path, contents: list[bytes]) -> None:
    path = write_parquet(tmp_path / "p.parquet", contents)
    job = replace(JOB, targets=TargetSpec.parse("column:label"))
    start(Source(str(path), columns=Columns(id="key")), tmp_path / "out", job=job)
    rows = pq.read_table(tmp_path / "out" / "data").to_pylist()
    assert [row["target_id"] for row in rows] == [i % 3 for i in range(10)]
    csv = tmp_path / "p.csv"
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(contents[index])
    csv.write_text('path,want\n0.png,"[""banana"", 3]"\n1.png,\n2.png,no such class\n')
    job = replace(JOB, targets=TargetSpec.parse("column:want"))
    summary = start(csv, tmp_path / "csv", job=job)
    assert summary.errors == 2
    rows = pq.read_table(tmp_path / "csv" / "data").to_pylist()
    assert [row["target_name"] for row in rows[:2]] == [
        "banana",
        gradtoken.load("demo").labels[3],
    ]
    assert "names no target here" in rows[2]["error"]
    assert "no such class" in rows[3]["error"]


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ("banan", "did you mean 'banana'"),
        ("top:0", "give a number of classes"),
        ("top:999", "top:999 is too many"),
        ("column:", "needs a name"),
        ("text:/nowhere.txt", "cannot be read"),
        (" , ", "--targets is empty"),
    ],
)
def test_run_rejects_invalid_targets_before_the_work(
    folder: Path, tmp_path: Path, targets: str, words: str
) -> None:
    with pytest.raises(TargetError, match=words):
        start(folder, tmp_path / "out", job=replace(JOB, targets=TargetSpec.parse(targets)))
    assert not (tmp_path / "out" / "manifest.json").exists()
