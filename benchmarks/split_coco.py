"""Half of a COCO list of instances, by the names of its files, as a list of its own.

python benchmarks/split_coco.py instances_val2017.json --half second --out second.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from gradtoken import atomic


def half_of(instances: dict[str, Any], *, second: bool) -> dict[str, Any]:
    """The images of one half, and their annotations."""
    images = sorted(instances["images"], key=lambda image: image["file_name"])
    middle = len(images) // 2
    images = images[middle:] if second else images[:middle]
    kept = {image["id"] for image in images}
    annotations = [note for note in instances["annotations"] if note["image_id"] in kept]
    return {**instances, "images": images, "annotations": annotations}


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("instances", type=Path)
    parser.add_argument("--half", choices=("first", "second"), default="second")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    instances = json.loads(args.instances.read_text(encoding="utf-8"))
    half = half_of(instances, second=args.half == "second")
    atomic.write_bytes(args.out, json.dumps(half).encode(), f"to {args.out}")
    print(f"{args.out}: {len(half['images'])} of {len(instances['images'])} images")


if __name__ == "__main__":
    main()
