"""The Ray engine on two nodes that the test starts on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gradtoken.batch import Progress, Source
from gradtoken.batch.engines.ray_client import run_as_task
from gradtoken.batch.running import execute
from gradtoken.batch.settings import RunSettings
from gradtoken.errors import DatasetError, GradTokenError, ModelError, OutputError
from tests.batch.conftest import COUNT, JOB, shards, start

cluster_utils = pytest.importorskip("ray.cluster_utils")
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("ray")]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of two nodes, each with room for one worker and some decoding."""
    import ray

    node = {"num_cpus": 2, "object_store_memory": 200 << 20, "node_ip_address": "127.0.0.1"}
    cluster = cluster_utils.Cluster(
        initialize_head=True, head_node_args={**node, "include_dashboard": False}
    )
    try:
        cluster.add_node(**node)
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_two_workers_on_two_nodes_give_the_bytes_of_the_local_engine(
    address: str, folder: Path, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    start(folder, whole)
    summary = start(folder, out, engine="ray", workers=2, address=address)
    assert (summary.images, summary.errors, summary.shards) == (COUNT, 1, 3)
    assert shards(out) == shards(whole)
    (out / "data" / "00000001.parquet").unlink()
    summary = start(folder, out, engine="ray", workers=1, address=address, resume=True)
    assert summary.resumed == 2
    assert shards(out) == shards(whole)


def test_run_rejects_workers_the_cluster_has_no_room_for(
    address: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"room for 3 workers of 1 threads.*ask for fewer"):
        start(folder, tmp_path / "a", engine="ray", workers=50, address=address)
    with pytest.raises(ModelError, match="has 4 CPUs and 0 GPUs"):
        start(folder, tmp_path / "b", engine="ray", num_gpus=0.5, address=address)
    with pytest.raises(GradTokenError, match=r"cannot read .* on this machine"):
        start(folder, tmp_path / "c", engine="ray", address="ray://127.0.0.1:1")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, for two workers to share")
def test_two_workers_share_a_gpu(folder: Path, tmp_path: Path) -> None:
    job = replace(JOB, device="cuda")
    whole, out = tmp_path / "whole", tmp_path / "out"
    start(folder, whole, job=job, engine="ray", workers=1, num_gpus=1)
    summary = start(folder, out, job=job, engine="ray", workers=2, num_gpus=0.5)
    assert (summary.images, summary.errors) == (COUNT, 1)
    assert shards(out) == shards(whole)


def test_run_raises_errors_of_workers(address: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"^1 images could not be explained, more than"):
        start(folder, tmp_path / "a", engine="ray", workers=1, address=address, max_errors=0)


def test_run_as_task_raises_errors_of_the_run(address: str, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    start(folder, out)
    settings = RunSettings(
        Source(str(folder)), str(out), JOB, engine="ray", num_gpus=0, address=address
    )
    with pytest.raises(OutputError, match="holds a run already; pass --resume"):
        run_as_task(execute, settings, Progress())
