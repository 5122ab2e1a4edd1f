"""Images in a bucket, results in another: an S3 server that the test runs on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gradtoken.batch import Source, read
from gradtoken.errors import OutputError
from tests.batch.conftest import COUNT, start

s3fs = pytest.importorskip("s3fs")


def test_run_from_bucket_to_bucket(
    buckets: Any, bucket_options: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    start(folder, tmp_path / "here")
    source = Source("s3://photos", options=bucket_options)
    summary = start(source, "s3://maps/run", out_options=bucket_options)
    assert (summary.images, summary.errors, summary.shards) == (COUNT, 1, 3)
    there = read("s3://maps/run", options=bucket_options, errors=None).table().drop(["source"])
    assert there == read(str(tmp_path / "here"), errors=None).table().drop(["source"])


def test_resume_after_lost_connection_gives_the_same_bytes(
    buckets: Any, bucket_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source("s3://photos", options=bucket_options)
    start(source, "s3://maps/whole", out_options=bucket_options)
    shards = []

    def broken(self: Any, path: str, value: bytes, **options: Any) -> None:
        if "/data/" in path:
            shards.append(path)
            if len(shards) > 1:
                raise OSError("the connection was reset")
        with self.open(path, "wb") as file:
            file.write(value)

    with monkeypatch.context() as patched:
        patched.setattr(s3fs.S3FileSystem, "pipe_file", broken, raising=False)
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(OutputError, match="the connection was reset; what was finished"):
            start(source, "s3://maps/run", out_options=bucket_options)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(OutputError, match="holds a run already"):
        start(source, "s3://maps/run", out_options=bucket_options)
    summary = start(source, "s3://maps/run", out_options=bucket_options, resume=True)
    assert summary.resumed == 1
    for name in ("00000000", "00000001", "00000002"):
        whole, run = (buckets.cat_file(f"maps/{at}/data/{name}.parquet") for at in ("whole", "run"))
        assert whole == run
