"""How fast `gradtoken batch` is beside a plain loop, and how much memory it takes.

    python benchmarks/batch.py --count 1000 --memory 1000 4000 --workers 1 2 --out benchmarks/out

Generated scenes on the bundled model. The loop is `explain(model, path, top_k=3)` for one image
after the other; `explain_each` is the same in batches. All have as many threads of torch in all.
Rates of the local command are of its own clock, without loading the model; those of Ray are of the
images that one run has more than another of a quarter as many, so that starting does not count.
Peak memory is the process's largest resident set, for runs of different lengths. Writes batch.json
and batch.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pyarrow import parquet

import gradtoken
from gradtoken.batch import read
from gradtoken.datasets import Scenes
from gradtoken.images.load_image import load_image

TOP_K = 3


def main() -> None:
    """The benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="images of a timed run")
    parser.add_argument("--memory", type=int, nargs="*", default=[], help="images of other runs")
    parser.add_argument("--workers", type=int, nargs="*", default=[], help="Ray workers to time")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=1, help="the fastest of so many counts")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="gradtoken-batch-"))
    try:
        results = measure(options, work)
    finally:
        shutil.rmtree(work)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "batch.json").write_text(json.dumps(results, indent=2) + "\n")
    (options.out / "batch.md").write_text(page(results))
    print(page(results))


def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """All measurements."""
    most = max([options.count, *options.memory])
    scenes, images = Scenes("test", objects=1), work / "images"
    images.mkdir()
    for index in range(most):
        scenes[index].image.save(images / f"{index:07d}.jpg", quality=90)
    paths = sorted(str(path) for path in images.iterdir())[: options.count]
    source = _part(images, work, options.count)
    rates: dict[str, float] = {}

    def best(name: str, run: Callable[[], float]) -> None:
        seconds = min(run() for _ in range(options.repeats))
        rates[name] = options.count / seconds
        print(f"{name}: {rates[name]:.1f} images/s", flush=True)

    torch.set_num_threads(options.threads)
    model = gradtoken.load("demo")
    gradtoken.explain(model, paths[0], top_k=TOP_K)
    best("explain, one by one", lambda: _timed(lambda: _loop(model, paths)))
    best("explain_each, batches of 16", lambda: _timed(lambda: _each(model, paths)))
    decode = _timed(lambda: _decode(model, paths)) / len(paths)
    local = ("--threads", str(options.threads))
    runs: list[dict[str, Any]] = []
    best("batch, local", lambda: _batch(source, work, runs, *local)["seconds"])
    for workers in options.workers:
        ray = ("--engine", "ray", "--workers", str(workers), "--threads", "1")
        few = _part(images, work, options.count // 4)
        begin = _batch(few, work, runs, *ray)["seconds"]
        name = f"batch, ray, {workers} x 1 thread"
        whole = _batch(source, work, runs, *ray)["seconds"]
        rates[name] = (options.count - options.count // 4) / (whole - begin)
        print(f"{name}: {rates[name]:.1f} images/s, {whole:.1f} s with its start", flush=True)
    memory = {}
    for count in sorted({*options.memory}):
        run = _batch(_part(images, work, count), work, runs, *local)
        memory[count] = run["peak_bytes"]
        print(f"{count} images: {count / run['seconds']:.1f} images/s, {memory[count]} bytes")
    out = work / "kept"
    _batch(source, work, runs, *local, keep=out)
    sizes = {
        name: sum(p.stat().st_size for p in (out / name).iterdir()) / options.count
        for name in ("data", "listing", "done")
    }
    _write_again(out, work)
    driver = _timed(lambda: _write_again(out, work)) / options.count
    reading = _timed(lambda: [one.tokens for one in read(str(out))])
    return {
        "machine": {
            "processor": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "threads": options.threads,
            "load_average_before": os.getloadavg()[0],
            "torch": torch.__version__,
        },
        "pictures": options.count,
        "targets": TOP_K,
        "pictures_per_second": rates,
        "batch_to_loop": rates["batch, local"] / rates["explain, one by one"],
        "batch_to_explain_each": rates["batch, local"] / rates["explain_each, batches of 16"],
        "decode_seconds": decode,
        "driver_seconds": driver,
        "bytes_per_picture": sizes,
        "maps_read_per_second": TOP_K * options.count / reading,
        "start_seconds": runs[0]["wall"] - runs[0]["seconds"],
        "peak_bytes": memory,
    }


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    machine = results["machine"]
    lines = [
        "# Batches",
        "",
        f"{results['pictures']:,} images, {results['targets']} targets each, bundled model, "
        f"{machine['cores']} cores, {machine['threads']} threads, load average "
        f"{machine['load_average_before']:.1f}.",
        "",
        "| run | images/s |",
        "|---|---:|",
        *(f"| {name} | {rate:.1f} |" for name, rate in results["pictures_per_second"].items()),
        "",
        f"Batch to the plain loop: {results['batch_to_loop']:.2f}; to explain_each: "
        f"{results['batch_to_explain_each']:.2f}.",
        "",
        f"Decoding and preprocessing: {1000 * results['decode_seconds']:.2f} ms an image. Bytes a "
        "image: "
        + ", ".join(f"{name} {size:.0f}" for name, size in results["bytes_per_picture"].items())
        + f". Maps read back: {results['maps_read_per_second']:.0f}/s. Start of the local command: "
        f"{results['start_seconds']:.1f} s. Gathering and writing in the driver: "
        f"{1e6 * results['driver_seconds']:.0f} µs an image.",
    ]
    if results["peak_bytes"]:
        lines += ["", "| images | peak memory (MB) |", "|---:|---:|"]
        lines += [f"| {n:,} | {size / 1e6:.0f} |" for n, size in results["peak_bytes"].items()]
    return "\n".join(lines) + "\n"


def _part(images: Path, work: Path, count: int) -> str:
    """A manifest of the first images."""
    path = work / f"{count}.csv"
    names = sorted(p.name for p in images.iterdir())[:count]
    path.write_text("path\n" + "".join(f"images/{name}\n" for name in names))
    return str(path)


def _batch(
    source: str, work: Path, runs: list[dict[str, Any]], *arguments: str, keep: Path | None = None
) -> dict[str, Any]:
    """The command in a process of its own: its summary, wall time and peak memory."""
    out = keep or work / "out"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "gradtoken", "batch", source, "--out", str(out), "--json"]
    command += ["--targets", f"top:{TOP_K}", "--shard-size", "250", *arguments]
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command[3:])} ended with {process.returncode}")
        output.seek(0)
        summary = dict(json.loads(output.read()))
    summary["wall"] = time.monotonic() - begun
    summary["peak_bytes"] = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    runs.append(summary)
    return summary


def _loop(model: Any, paths: list[str]) -> None:
    for path in paths:
        gradtoken.explain(model, path, top_k=TOP_K).tokens.cpu()


def _each(model: Any, paths: list[str]) -> None:
    for one in gradtoken.explain_each(model, paths, top_k=TOP_K, batch_size=16, workers=0):
        one.tokens.cpu()


def _decode(model: Any, paths: list[str]) -> None:
    for path in paths:
        model.preprocess(load_image(Path(path).read_bytes()))


def _write_again(out: Path, work: Path) -> None:
    """What the driver does with rows that come from workers."""
    from gradtoken.batch.results.folder import Folder
    from gradtoken.batch.results.manifest import Journal, write_shard
    from gradtoken.batch.results.schema import from_ipc, to_ipc, to_parquet

    folder = Folder(str(work / "again"))
    journal = Journal(folder)
    for shard, path in enumerate(sorted((out / "data").iterdir())):
        table = from_ipc(to_ipc(parquet.read_table(path)))
        content = to_parquet(table)
        journal.add(write_shard(folder, shard, content, table.num_rows, (0, 0)))
    journal.flush()


def _timed(run: Callable[[], Any]) -> float:
    begun = time.monotonic()
    run()
    return time.monotonic() - begun


if __name__ == "__main__":
    main()
