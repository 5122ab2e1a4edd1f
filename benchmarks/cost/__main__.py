"""What explanations cost: measure, and write docs/performance.md.

python -m benchmarks.cost all           # everything, then the page
python -m benchmarks.cost methods       # one part; page makes the page of what there is
python -m benchmarks.cost reach         # the table of reach and reached
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from benchmarks.cost import (
    files,
    growth,
    machine,
    methods,
    operations,
    page,
    quickest,
    reading,
    startup,
    steps,
    targets,
)
from benchmarks.cost.reach import reaches
from benchmarks.cost.tables import reach_table
from rich.console import Console

PARTS = {
    "startup": startup.measure,
    "operations": operations.measure,
    "steps": steps.measure,
    "targets": targets.measure,
    "growth": growth.measure,
    "files": files.measure,
    "methods": methods.measure,
    "quickest": quickest.measure,
    "reading": reading.measure,
}

console = Console(stderr=True)


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["all", "page", "reach", *PARTS])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("docs/performance"))
    parser.add_argument("--page", type=Path, default=Path("docs/performance.md"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    for name in PARTS if args.what == "all" else {args.what} & PARTS.keys():
        rows = PARTS[name](device, dtype, args.rounds, console.print)
        record = {"machine": {**machine.describe(device), "dtype": args.dtype}, "rows": rows}
        path = args.out / f"{name}.json"
        path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        console.print(f"wrote {path}")
    if args.what in ("all", "page"):
        page.write(args.page, args.out)
        console.print(f"wrote {args.page}")
    print(reach_table(reaches(page.load(args.out)[0])))


if __name__ == "__main__":
    main()
