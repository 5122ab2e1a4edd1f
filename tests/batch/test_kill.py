"""Killed runs resume to the bytes of an uninterrupted one: benchmarks/batch_kill.py, small."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.waiting import PATIENCE

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "batch_kill.py"


TOO_FAST = ("a run ended before it was killed", "there was no worker to kill")
"""The process ended before it was killed; another seed kills at another moment."""


def kill(tmp_path: Path, *arguments: str) -> tuple[Path, dict[str, object]]:
    """The folder of a killed run, and the outcome that the script writes."""
    for seed in range(4):
        work, outcome = tmp_path / f"work-{seed}", tmp_path / "outcome.json"
        command = [sys.executable, str(SCRIPT), "--work", str(work), "--out", str(outcome)]
        command += ["--seed", str(seed), *arguments]
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                output, errors = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        if not any(words in errors for words in TOO_FAST):
            break
    logs = "\n".join(path.read_text() for path in work.glob("*.log"))
    assert process.returncode == 0, output + errors + logs
    return work, json.loads(outcome.read_text())


def same_bytes(whole: Path, killed: Path, count: int) -> None:
    names = sorted(path.name for path in (whole / "data").iterdir())
    assert len(names) == count // 20
    assert names == sorted(path.name for path in (killed / "data").iterdir())
    for name in names:
        assert (killed / "data" / name).read_bytes() == (whole / "data" / name).read_bytes()
    ids = pq.read_table(killed / "data", columns=["id", "rank"]).to_pylist()
    assert len({row["id"] for row in ids}) == sum(row["rank"] == 0 for row in ids) == count


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs SIGKILL and /proc")
def test_killed_run_of_the_local_engine(tmp_path: Path) -> None:
    work, outcome = kill(
        *(tmp_path, "--engine", "local", "--formats", "webdataset", "--count", "200"),
        *("--kills", "2", "--shard-size", "20"),
    )
    whole, killed = (work / f"webdataset-{kind}" for kind in ("whole", "killed"))
    same_bytes(whole, killed, 200)
    assert {event["kind"] for event in outcome["webdataset"]["kills"]} == {"driver", "write"}
    assert not list(killed.rglob(".part-*"))


@pytest.mark.cluster
@pytest.mark.xdist_group("ray")
@pytest.mark.skipif(sys.platform != "linux", reason="needs SIGKILL and /proc")
def test_killed_run_of_the_ray_engine(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    arguments = ("--formats", "parquet", "--reference", "local", "--count", "240", "--kills", "2")
    work, outcome = kill(tmp_path, "--engine", "ray", *arguments, "--shard-size", "20")
    whole, killed = work / "parquet-whole", work / "parquet-killed"
    assert {event["kind"] for event in outcome["parquet"]["kills"]} >= {"worker", "write"}
    same_bytes(whole, killed, 240)
