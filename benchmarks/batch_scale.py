"""What a million and a billion images take: a model of cost and size on measured rates.

    python benchmarks/batch_scale.py --rates benchmarks/out/batch.json --gpu-rate 500

Reads what benchmarks/batch.py measured. Costs grow with the network: `--work` says how many times
the bundled model's arithmetic the real one takes. A GPU's rate is yours to measure with
`gradtoken batch` on a few thousand images; the default is an example, no claim. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Rates:
    """What one image takes.

    Args:
        decode: seconds of one core to decode and preprocess it.
        core: seconds of one core to explain it, all targets.
        gpu: seconds of one GPU to explain it, all targets.
        read: bytes of its file.
        written: bytes of its rows.
        listed: bytes of its entry in the listing.
    """

    decode: float
    core: float
    gpu: float
    read: float
    written: float
    listed: float


@dataclass(frozen=True)
class Plan:
    """What a run of many images takes.

    Args:
        cores, gpus: that work.
        hours: until it ends.
        bound: what it waits for.
        core_hours, gpu_hours: paid for.
    """

    cores: int
    gpus: int
    hours: float
    bound: str
    core_hours: float
    gpu_hours: float


def plan(rates: Rates, images: int, cores: int, gpus: int, writer: float, network: float) -> Plan:
    """The slowest of decoding, models, one process that writes, and the network.

    Args:
        writer: seconds of the driver for an image (rows gathered, compressed, written).
        network: bytes a second that all workers together read.
    """
    if gpus:
        parts = {"GPUs": rates.gpu / gpus, "decoding": rates.decode / cores}
    else:
        parts = {"processors": (rates.decode + rates.core) / cores}
    parts |= {"the driver": writer, "the network": rates.read / network}
    bound = max(parts, key=lambda name: parts[name])
    hours = images * parts[bound] / 3600
    return Plan(cores, gpus, hours, bound, hours * cores, hours * gpus)


def main() -> None:
    """The tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", type=Path, required=True, help="batch.json of batch.py")
    parser.add_argument("--work", type=float, default=1.0, help="times the bundled model")
    parser.add_argument("--decode", type=float, help="seconds of a core; default: as measured")
    parser.add_argument("--image-bytes", type=float, default=110e3, help="of an image's file")
    parser.add_argument("--gpu-rate", type=float, default=500, help="images/s of one GPU")
    parser.add_argument("--core-hour", type=float, default=0.04, help="price of a core for an hour")
    parser.add_argument("--gpu-hour", type=float, default=2.0, help="price of a GPU for an hour")
    parser.add_argument("--network", type=float, default=1.25e9, help="bytes a second, all workers")
    options = parser.parse_args()
    measured = json.loads(options.rates.read_text())
    machine, sizes = measured["machine"], measured["bytes_per_picture"]
    whole = machine["threads"] / measured["pictures_per_second"]["batch, local"]
    decode = measured["decode_seconds"] if options.decode is None else options.decode
    rates = Rates(
        decode=decode,
        core=max(whole - measured["decode_seconds"], 0) * options.work,
        gpu=1 / options.gpu_rate,
        read=options.image_bytes,
        written=sizes["data"],
        listed=sizes["listing"],
    )
    writer = measured["driver_seconds"]
    print(
        f"An image: {1000 * rates.decode:.2f} ms of a core to decode, {1000 * rates.core:.1f} ms "
        f"of a core or {1000 * rates.gpu:.1f} ms of a GPU to explain, {1e6 * writer:.0f} µs of the "
        "driver, "
        f"{rates.written:.0f} bytes of results, {rates.listed:.0f} bytes of listing.\n"
    )
    print("| images | cores | GPUs | hours | waits for | core hours | GPU hours | price |")
    print("|---:|---:|---:|---:|---|---:|---:|---:|")
    for images in (10**6, 10**9):
        for cores, gpus in ((2, 0), (64, 0), (1024, 0), (16, 1), (128, 8), (1024, 64), (4096, 256)):
            one = plan(rates, images, cores, gpus, writer, options.network)
            price = one.core_hours * options.core_hour + one.gpu_hours * options.gpu_hour
            print(
                f"| {images:,} | {cores} | {gpus} | {one.hours:,.1f} | {one.bound} | "
                f"{one.core_hours:,.0f} | {one.gpu_hours:,.0f} | {price:,.0f} |"
            )
    print("\n| images | results | listing | shards of 1,024 |\n|---:|---:|---:|---:|")
    for images in (10**6, 10**9):
        written, listed = (images * size / 1e9 for size in (rates.written, rates.listed))
        print(f"| {images:,} | {written:,.1f} GB | {listed:,.2f} GB | {-(-images // 1024):,} |")


if __name__ == "__main__":
    main()
