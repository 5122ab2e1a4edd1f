"""Nothing lost: batch runs killed at random moments end in the bytes of an uninterrupted run.

    python benchmarks/batch_kill.py --count 20000 --kills 10 --engine ray --workers 2

Generated scenes are written as WebDataset tar files and as Parquet. Each is explained once without
interruption and once with kills (SIGKILL): of the driver, of the driver in the middle of writing
a shard, and of a worker, which the run has to survive by itself. After each death of the driver
the same command is run with --resume. Exit code 1 if a byte or an id differs. POSIX with /proc.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FORMATS = ("webdataset", "parquet")
_HOOK = "GRADTOKEN_KILL_AT_WRITE"
_PER_FILE = 1000


def make_sources(folder: Path, count: int) -> dict[str, str]:
    """`count` scenes in both forms, and what to give to the command for each."""
    from gradtoken.datasets import Scenes

    tars, tables = folder / "webdataset", folder / "parquet"
    for place in (tars, tables):
        place.mkdir(parents=True, exist_ok=True)
    scenes = Scenes("test", objects=1)
    for first in range(0, count, _PER_FILE):
        rows = []
        with tarfile.open(tars / f"{first // _PER_FILE:05d}.tar", "w") as archive:
            for index in range(first, min(first + _PER_FILE, count)):
                sink = io.BytesIO()
                scenes[index].image.save(sink, "JPEG", quality=90)
                member = tarfile.TarInfo(f"{index:08d}.jpg")
                member.size = sink.tell()
                archive.addfile(member, io.BytesIO(sink.getvalue()))
                rows.append({"id": f"{index:08d}", "image": {"bytes": sink.getvalue()}})
        pq.write_table(
            pa.Table.from_pylist(rows),
            tables / f"{first // _PER_FILE:05d}.parquet",
            row_group_size=100,
        )
    return {"webdataset": str(tars), "parquet": str(tables)}


class Attempt:
    """The command running in a process of its own."""

    def __init__(self, arguments: list[str], log: Path, kill_at_write: int | None = None) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment.pop(_HOOK, None)
        if kill_at_write is not None:
            environment[_HOOK] = str(kill_at_write)
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "--drive", *arguments],
                stdout=output,
                stderr=output,
                env=environment,
            )

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def kill_worker(self, chooser: random.Random) -> bool:
        """Kill one process below the driver that holds a model; False if there is none."""
        while self.process.poll() is None:
            workers = [p for p in _below(self.process.pid) if b"ModelActor" in _command(p)]
            if workers:
                os.kill(chooser.choice(workers), signal.SIGKILL)
                return True
            time.sleep(0.02)
        return False


def drive(arguments: list[str]) -> None:
    """Be the command; with the hook set, die half-way through writing a shard."""
    from gradtoken import atomic
    from gradtoken.cli import main

    left = int(os.environ.get(_HOOK, "-1"))
    if left >= 0:
        write = atomic.write_bytes

        def dying(path: Path, content: bytes, *arguments: Any, **options: Any) -> None:
            nonlocal left
            if path.parent.name == "data":
                if left == 0:
                    atomic.temporary_path(path).write_bytes(content[: len(content) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
            write(path, content, *arguments, **options)

        atomic.write_bytes = dying
    sys.argv = ["gradtoken", *arguments]
    main()


def killed_run(
    arguments: list[str], out: Path, shards: int, kinds: list[str], seed: int, log: Path
) -> list[dict[str, Any]]:
    """Run to the end through kills at random shards; what was killed and when.

    The last third is spared: there, a run may end before it is killed.
    """
    chooser = random.Random(seed)
    moments = sorted(chooser.sample(range(1, max(len(kinds) + 1, shards * 2 // 3)), len(kinds)))
    chooser.shuffle(kinds)
    events: list[dict[str, Any]] = []
    attempt: Attempt | None = None
    for kind, moment in zip(kinds, moments, strict=True):
        if kind == "write":
            if attempt is not None:  # the hook is set when a process starts
                _wait(attempt, out, max(_done(out), moment - 1))
                attempt.kill()
                events.append({"kind": "driver", "shards": _done(out)})
            left = max(0, moment - _done(out))
            attempt = Attempt([*arguments, "--resume"], log, kill_at_write=left)
            attempt.process.wait()
            assert attempt.process.returncode == -signal.SIGKILL, "the hook did not kill it"
            assert list((out / "data").glob(".part-*")), "no shard was half-written"
            attempt = None
        else:
            attempt = attempt or Attempt([*arguments, "--resume"], log)
            _wait(attempt, out, moment)
            time.sleep(chooser.uniform(0, 0.5))
            if attempt.process.poll() is not None:
                raise SystemExit("a run ended before it was killed; use more or smaller shards")
            if kind == "worker":
                assert attempt.kill_worker(chooser), "there was no worker to kill"
            else:
                attempt.kill()
                attempt = None
        events.append({"kind": kind, "shards": _done(out)})
    attempt = attempt or Attempt([*arguments, "--resume"], log)
    if attempt.process.wait():
        raise SystemExit(f"the last attempt failed; see {log}")
    return events


def compare(whole: Path, killed: Path, count: int) -> dict[str, Any]:
    """Ids and bytes of two runs."""
    names = [sorted(p.name for p in (out / "data").iterdir()) for out in (whole, killed)]
    same = names[0] == names[1] and all(
        (whole / "data" / n).read_bytes() == (killed / "data" / n).read_bytes() for n in names[0]
    )
    times: Counter[str] = Counter()
    for name in names[1]:
        table = pq.read_table(killed / "data" / name, columns=["id", "rank"])
        ranked = zip(table["id"].to_pylist(), table["rank"].to_pylist(), strict=True)
        times.update(name for name, rank in ranked if rank == 0)
    return {
        "same_bytes": same,
        "missing": count - len(times),
        "twice": sum(number > 1 for number in times.values()),
    }


def _engine(name: str, workers: int) -> list[str]:
    return ["--engine", name, *(("--workers", str(workers)) if name == "ray" else ())]


def _wait(attempt: Attempt, out: Path, shards: int) -> None:
    while _done(out) < shards and attempt.process.poll() is None:
        time.sleep(0.02)


def _done(out: Path) -> int:
    try:
        return sum(
            name.endswith(".parquet") and name[0] != "." for name in os.listdir(out / "data")
        )
    except FileNotFoundError:
        return 0


def _below(process: int) -> list[int]:
    """Every process that descends from one."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                status = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(status.rpartition(")")[2].split()[1])
    descendants, remaining = [], [process]
    while remaining:
        current = remaining.pop()
        children = [child for child, parent in parents.items() if parent == current]
        descendants += children
        remaining += children
    return descendants


def _command(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def main() -> None:
    """The benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--engine", choices=("local", "ray"), default="ray")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shard-size", type=int, default=200)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument(
        "--reference",
        choices=("local", "ray"),
        help="engine of the uninterrupted run; default: the same",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="a new folder that is kept")
    parser.add_argument("--out", type=Path, help="write the outcome as JSON")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="gradtoken-kill-"))
    begun = time.monotonic()
    sources = make_sources(work / "sources", options.count)
    print(f"{options.count} scenes written in {time.monotonic() - begun:.0f} s", flush=True)
    common = ["--targets", "top:3", "--threads", "1", "--shard-size", str(options.shard_size)]
    common += ["--quiet"]
    shards = -(-options.count // options.shard_size)
    kinds = ["worker", "write", "driver"] if options.engine == "ray" else ["driver", "write"]
    outcome: dict[str, Any] = {"count": options.count, "shards": shards, "engine": options.engine}
    for name in options.formats:
        whole, killed, log = work / f"{name}-whole", work / f"{name}-killed", work / f"{name}.log"
        command = ["batch", sources[name], *common]
        started = time.monotonic()
        reference = _engine(options.reference or options.engine, options.workers)
        if Attempt([*command, *reference, "--out", str(whole)], log).process.wait():
            raise SystemExit(f"the uninterrupted run failed; see {log}")
        seconds = time.monotonic() - started
        chosen = [kinds[i % len(kinds)] for i in range(options.kills)]
        started = time.monotonic()
        arguments = [*command, *_engine(options.engine, options.workers), "--out", str(killed)]
        events = killed_run(arguments, killed, shards, chosen, options.seed, log)
        outcome[name] = {
            **compare(whole, killed, options.count),
            "seconds_whole": round(seconds, 1),
            "seconds_killed": round(time.monotonic() - started, 1),
            "kills": events,
        }
        print(f"{name}: {json.dumps(outcome[name])}", flush=True)
    text = json.dumps(outcome, indent=2)
    if options.out:
        options.out.write_text(text + "\n")
    if options.work is None:
        shutil.rmtree(work)
    good = {"same_bytes": True, "missing": 0, "twice": 0}
    if any(outcome[name][key] != value for name in options.formats for key, value in good.items()):
        raise SystemExit("the killed run differs from the uninterrupted one")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--drive"]:
        drive(sys.argv[2:])
    else:
        main()
