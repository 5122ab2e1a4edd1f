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


def ids(out: Path) -> list[str]:
    return pq.read_table(out / "data", columns=["id"])["id"].to_pylist()


@pytest.mark.skipif(sys.platform != "linux", reason="needs SIGKILL and /proc")
def test_the_local_engine(tmp_path: Path) -> None:
    outcome = kill(
        tmp_path, "--engine", "local", "--count", "200", "--kills", "3", "--shard-size", "20"
    )
    for name in ("webdataset", "parquet"):
        whole, killed = (tmp_path / "work" / f"{name}-{kind}" for kind in ("whole", "killed"))
        assert ids(whole) == ids(killed)
        assert len(set(ids(killed))) == 200
        for path in (whole / "data").iterdir():
            assert (killed / "data" / path.name).read_bytes() == path.read_bytes()
        assert {event["kind"] for event in outcome[name]["kills"]} == {"driver", "write"}
        assert not list(killed.rglob(".part-*"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs SIGKILL and /proc")
def test_the_ray_engine_and_its_workers(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    arguments = ("--formats", "parquet", "--reference", "local", "--count", "240", "--kills", "2")
    outcome = kill(tmp_path, "--engine", "ray", *arguments, "--shard-size", "20")
    whole, killed = tmp_path / "work" / "parquet-whole", tmp_path / "work" / "parquet-killed"
    assert {event["kind"] for event in outcome["parquet"]["kills"]} >= {"worker", "write"}
    names = sorted(path.name for path in (whole / "data").iterdir())
    assert names == sorted(path.name for path in (killed / "data").iterdir())
    assert len(names) == 12
    for name in names:
        assert (killed / "data" / name).read_bytes() == (whole / "data" / name).read_bytes()
    assert len(set(ids(killed))) == 240
