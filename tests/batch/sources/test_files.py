"""Files on other file systems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradtoken.batch import Source
from gradtoken.batch.sources.listing import list_items
from tests.batch.conftest import COUNT, list_source, read_contents


def test_memory_file_system(tmp_path: Path, contents: list[bytes]) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/batch-test/a.png", contents[0])
    memory.pipe("/batch-test/b.png", contents[1])
    assert read_contents(list_source("memory://batch-test")) == contents[:2]
    memory.rm("/batch-test", recursive=True)


def test_new_objects_of_a_bucket_are_listed(buckets: Any, bucket_options: dict[str, Any]) -> None:
    source = Source("s3://photos", options=bucket_options)
    assert len(list(list_items(source))) == COUNT
    buckets.pipe_file("photos/new.png", b"whatever")
    assert len(list(list_items(source))) == COUNT + 1
