"""A few images in every kind of source, and how to run a batch job over them."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from gradtoken.batch import Columns, Job, Source, Summary, TargetSpec, run
from gradtoken.batch.sources.fetch import fetch
from gradtoken.batch.sources.item import Item
from gradtoken.batch.sources.listing import list_items
from gradtoken.datasets import Scenes
from gradtoken.errors import ImageError

# Ray reads these while it is imported, and then keeps to the loopback interface.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Its workers are niced by default, and starve where other programs hold every core.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (as Ray spells it)

COUNT = 10
JOB = Job(targets=TargetSpec(top_k=2), batch_size=3, threads=1)


def png(index: int) -> bytes:
    sink = io.BytesIO()
    Scenes("test", objects=1)[index].image.save(sink, "PNG")
    return sink.getvalue()


@pytest.fixture(scope="session")
def contents() -> list[bytes]:
    return [png(index) for index in range(COUNT)]


@pytest.fixture
def folder(tmp_path: Path, contents: list[bytes]) -> Path:
    """Images 000.png …, of which 004.png is not an image."""
    place = tmp_path / "pictures"
    (place / "b").mkdir(parents=True)
    for index, content in enumerate(contents):
        (place / ("b" if index > 6 else "") / f"{index:03d}.png").write_bytes(content)
    (place / "004.png").write_bytes(b"not an image")
    return place


def tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def table(contents: list[bytes]) -> pa.Table:
    return pa.table(
        {
            "key": [f"k{index}" for index in range(len(contents))],
            "image": [{"bytes": c, "path": f"{i}.png"} for i, c in enumerate(contents)],
            "label": [index % 3 for index in range(len(contents))],
        }
    )


def write_parquet(path: Path, contents: list[bytes]) -> Path:
    parquet.write_table(table(contents), path, row_group_size=4)
    return path


def write_hf(folder: Path, contents: list[bytes], names: list[str]) -> Path:
    """As `Dataset.save_to_disk` lays a data set out."""
    folder.mkdir()
    feature = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    whole = table(contents).select(["image", "label"])
    whole = whole.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": feature}})}
    )
    path = str(folder / "data-00000-of-00001.arrow")
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_stream(sink, whole.schema) as writer:
        writer.write_table(whole, max_chunksize=4)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def list_source(spec: Path | str, kind: str | None = None, **columns: str) -> list[Item]:
    return list(list_items(Source(str(spec), kind, Columns(**columns))))


def read_contents(items: list[Item]) -> list[bytes]:
    contents = [content for _, content in fetch(items, {}, None)]
    assert not [content for content in contents if isinstance(content, ImageError)]
    return contents


def start(source: Source | Path | str, out: Path, **options: object) -> Summary:
    source = source if isinstance(source, Source) else str(source)
    return run(source, str(out), **{"job": JOB, "shard_size": 4, "threads": 1, **options})


@pytest.fixture
def out(folder: Path, tmp_path: Path) -> Path:
    """The results of a run over `folder`."""
    start(folder, tmp_path / "out")
    return tmp_path / "out"


def shards(out: Path) -> dict[str, bytes]:
    """The files of results and their bytes."""
    return {path.name: path.read_bytes() for path in sorted((out / "data").iterdir())}


@pytest.fixture(scope="session")
def bucket_options() -> Iterator[dict[str, Any]]:
    """An S3 server on loopback; yields the options of `--storage-option` that reach it."""
    s3fs, moto_server = (pytest.importorskip(name) for name in ("s3fs", "moto.server"))
    server = moto_server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {"key": "a", "secret": "b", "endpoint_url": f"http://{host}:{port}"}
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture
def buckets(bucket_options: dict[str, Any], folder: Path) -> Iterator[Any]:
    """The file system of two buckets: photos, with the images of `folder`, and maps."""
    fresh = {"use_listings_cache": False, "skip_instance_cache": True}
    store = pytest.importorskip("s3fs").S3FileSystem(**bucket_options, **fresh)
    for bucket in ("photos", "maps"):
        store.mkdir(bucket)
    store.put(f"{folder}/", "photos/", recursive=True)
    yield store
    for bucket in ("photos", "maps"):
        store.rm(bucket, recursive=True)
