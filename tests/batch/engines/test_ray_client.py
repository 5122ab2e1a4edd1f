"""A cluster reached from outside through Ray Client, with images and results in buckets."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gradtoken.batch import Job, Source
from gradtoken.batch.engines.ray_client import choose_device
from gradtoken.batch.settings import RunSettings
from tests.batch.conftest import COUNT, start
from tests.waiting import PATIENCE, until

for needed in ("ray", "grpc", "s3fs"):
    pytest.importorskip(needed)
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("ray")]

SETTINGS = {
    "RAY_AUTH_MODE": "disabled",
    "GRPC_POLL_STRATEGY": "poll",  # Ray's server forks, which the default one does not survive
    "GRPC_ENABLE_FORK_SUPPORT": "0",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    def open() -> bool:
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(open, "Ray did not begin to serve")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of one machine in processes of its own."""
    port, folder = free_port(), tempfile.mkdtemp(prefix="ray-")
    command = [
        *(sys.executable, "-c", "from ray.scripts.scripts import main; main()"),
        *("start", "--head", "--block", "--node-ip-address", "127.0.0.1", "--num-cpus", "2"),
        *("--port", str(free_port()), "--ray-client-server-port", str(port)),
        *("--include-dashboard", "false", "--object-store-memory", str(200 << 20)),
        *("--temp-dir", folder),
    ]
    log = Path(folder, "log.txt")
    with log.open("wb") as sink:
        cluster = subprocess.Popen(
            command, env={**os.environ, **SETTINGS}, stdout=sink, stderr=subprocess.STDOUT
        )
    try:
        await_port(port, cluster, log)
        yield f"ray://127.0.0.1:{port}"
    finally:
        cluster.kill()  # what it started goes with it, at once
        cluster.wait(PATIENCE)
        shutil.rmtree(folder, ignore_errors=True)


def batch(address: str, options: dict[str, Any], *more: str) -> subprocess.CompletedProcess[str]:
    storage = [f"--storage-option={name}={value}" for name, value in options.items()]
    command = [
        *(sys.executable, "-m", "gradtoken", "batch", "s3://photos", "--out", "s3://maps/run"),
        *("--targets", "top:2", "--batch-size", "3", "--shard-size", "4", "--threads", "1"),
        *("--engine", "ray", "--address", address, *storage, *more),
    ]
    environment = {**os.environ, **SETTINGS, "COLUMNS": "300"}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_run_on_cluster_gives_the_bytes_of_the_local_engine(
    address: str, buckets: Any, bucket_options: dict[str, Any]
) -> None:
    source = Source("s3://photos", options=bucket_options)
    start(source, "s3://maps/here", out_options=bucket_options)
    done = batch(address, bucket_options)
    assert done.returncode == 1, done.stderr
    assert f"{COUNT} images" in done.stdout + done.stderr
    assert f"1 of {COUNT} images could not be explained" in done.stderr
    for name in ("00000000", "00000001", "00000002"):
        here, there = (buckets.cat_file(f"maps/{at}/data/{name}.parquet") for at in ("here", "run"))
        assert here == there


def test_run_on_cluster_rejects_a_local_folder(address: str, folder: Path) -> None:
    command = [sys.executable, "-m", "gradtoken", "batch", str(folder), "--out", "maps"]
    done = subprocess.run(
        [*command, "--engine", "ray", "--address", address],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert "cannot read maps on this machine; give a folder that both reach" in done.stderr


def test_run_names_a_missing_token(folder: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "gradtoken", "batch", str(folder)),
            *("--out", str(tmp_path / "maps"), "--engine", "ray", "--address", "127.0.0.1:1"),
        ],
        env={**os.environ, **SETTINGS, "RAY_AUTH_MODE": "token", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "error: Ray cannot be started or reached: Token authentication is" in done.stderr


@pytest.mark.parametrize(
    ("device", "num_gpus", "resources", "expected"),
    [
        (None, None, {"CPU": 4.0}, ("cpu", 0.0)),
        (None, None, {"CPU": 4.0, "GPU": 2.0}, (None, 1.0)),
        ("cuda", None, {"CPU": 4.0}, ("cuda", 1.0)),
        ("cpu", None, {"GPU": 2.0}, ("cpu", 0.0)),
        (None, 0.5, {"GPU": 2.0}, (None, 0.5)),
        (None, 0.0, {"GPU": 2.0}, ("cpu", 0.0)),
    ],
)
def test_choose_device_by_resources_of_the_cluster(
    device: str | None,
    num_gpus: float | None,
    resources: dict[str, float],
    expected: tuple[str | None, float],
) -> None:
    settings = RunSettings(
        Source("s3://photos"), "s3://maps", Job(device=device), num_gpus=num_gpus
    )
    chosen = choose_device(settings, resources)
    assert (chosen.job.device, chosen.num_gpus) == expected
