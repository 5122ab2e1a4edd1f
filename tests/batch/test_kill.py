"""Killed runs go on to the bytes of an uninterrupted one; benchmarks/batch_kill.py small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "batch_kill.py"


def kill(tmp_path: Path, *arguments: str) -> dict[str, object]:
    work, outcome = tmp_path / "work", tmp_path / "outcome.json"
    command = [sys.executable, str(SCRIPT), "--work", str(work), "--out", str(outcome)]
    found = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=300)
    logs = "\n".join(path.read_text() for path in work.glob("*.log"))
    assert found.returncode == 0, found.stdout + found.stderr + logs
    return json.loads(outcome.read_text())


def same_bytes(whole: Path, killed: Path, count: int) -> None:
    names = sorted(path.name for path in (whole / "data").iterdir())
    assert len(names) == count // 20
    assert names == sorted(path.name for path in (killed / "data").iterdir())
    for name in names:
        assert (killed / "data" / name).read_bytes() == (whole / "data" / name).read_bytes()
    ids = pq.read_table(killed / "data", columns=["id", "rank"]).to_pylist()
    assert len({row["id"] for row in ids}) == sum(row["rank"] == 0 for row in ids) == count


@pytest.mark.skipif(sys.platform != "linux", reason="needs SIGKILL and /proc")
def test_the_local_engine(tmp_path: Path) -> None:
    outcome = kill(
        *(tmp_path, "--engine", "local", "--formats", "webdataset", "--count", "200"),
        *("--kills", "2", "--shard-size", "20"),
    )
    whole, killed = (tmp_path / "work" / f"webdataset-{kind}" for kind in ("whole", "killed"))
    same_bytes(whole, killed, 200)
    assert {event["kind"] for event in outcome["webdataset"]["kills"]} == {"driver", "write"}
    assert not list(killed.rglob(".part-*"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs SIGKILL and /proc")
def test_the_ray_engine_and_its_workers(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    arguments = ("--formats", "parquet", "--reference", "local", "--count", "240", "--kills", "2")
    outcome = kill(tmp_path, "--engine", "ray", *arguments, "--shard-size", "20")
    whole, killed = tmp_path / "work" / "parquet-whole", tmp_path / "work" / "parquet-killed"
    assert {event["kind"] for event in outcome["parquet"]["kills"]} >= {"worker", "write"}
    same_bytes(whole, killed, 240)
