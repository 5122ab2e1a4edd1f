"""Render the bundled sprite archive from npm copies of ten openly licensed emoji sets.

The ten sets are npm packages ``@iconify-json/<set>`` (see ``SETS``). Install them anywhere with
npm, then::

    python tools/build_sprites.py --npm path/to/node_modules

Every icon is rendered to a bitmap, trimmed to its alpha bounding box and stored as a WebP image
in one zip archive together with ``index.json``, which records for every sprite the set, the name
of the original icon and the licence. The archive is deterministic: same input, same bytes.

Each set's ``info.json`` is checked against ``ALLOWED_LICENCES``; anything else, share-alike
licences in particular, is refused.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import resvg_py
from PIL import Image

ALLOWED_LICENCES = frozenset({"Apache-2.0", "MIT", "CC-BY-4.0"})
TEST_STYLE = "twemoji"
SETS = (
    "noto",
    "noto-v1",
    "fxemoji",
    "emojione",
    "emojione-monotone",
    "fluent-emoji",
    "fluent-emoji-flat",
    "fluent-emoji-high-contrast",
    "streamline-emojis",
    TEST_STYLE,
)
DEFAULT_OUT = Path(__file__).parents[1] / "src/gradtoken/datasets/assets/sprites.zip"
TIMESTAMP = (1980, 1, 1, 0, 0, 0)
MAX_BYTES = 6 * 1024 * 1024

# Icon name in most sets -> (readable name, name in fxemoji, name in streamline-emojis).
# None: the set has no such icon, or draws it so differently that it is another thing.
CONCEPTS: dict[str, tuple[str, str | None, str | None]] = {
    "strawberry": ("strawberry", "strawberry", "strawberry-1"),
    "banana": ("banana", "banana", None),
    "pineapple": ("pineapple", "pineapple", None),
    "watermelon": ("watermelon", "watermelon", "watermelon-1"),
    "cherries": ("cherries", "cherries", "cherries"),
    "grapes": ("grapes", "grapes", "grapes"),
    "mushroom": ("mushroom", "mushroom", "mushroom"),
    "hamburger": ("hamburger", "hamburger", "hamburger-1"),
    "doughnut": ("doughnut", "doughnut", "doughnut-1"),
    "french-fries": ("french fries", "frenchfries", "french-fries"),
    "octopus": ("octopus", "octopus", "octopus"),
    "lady-beetle": ("ladybird", "ladybeetle", "lady-beetle"),
    "butterfly": ("butterfly", None, None),
    "turtle": ("turtle", "turtle", "turtle"),
    "snail": ("snail", "snail", "snail"),
    "elephant": ("elephant", "elephant", "elephant"),
    "penguin": ("penguin", "penguin", None),
    "rooster": ("rooster", "rooster", "rooster"),
    "rocket": ("rocket", "rocket", "rocket"),
    "airplane": ("airplane", "airplane", "airplane"),
    "helicopter": ("helicopter", "helicopter", "helicopter"),
    "sailboat": ("sailboat", None, "sailboat"),
    "bicycle": ("bicycle", "bicycle", "bicycle"),
    "automobile": ("car", "automobile", "automobile"),
    "umbrella": ("umbrella", None, "umbrella"),
    "guitar": ("guitar", "guitar", "guitar"),
    "key": ("key", "key", None),
    "bell": ("bell", "bell", "bell"),
    "light-bulb": ("light bulb", "lightbulb", None),
    "alarm-clock": ("alarm clock", "alarmclock", None),
    "scissors": ("scissors", "blackscissors", None),
    "crown": ("crown", "crown", "crown"),
    "jack-o-lantern": ("pumpkin lantern", "jackolantern", "jack-o-lantern"),
    "christmas-tree": ("christmas tree", "christmastree", "christmas-tree"),
    "cactus": ("cactus", "cactus", "cactus-1"),
    "palm-tree": ("palm tree", "palmtree", "palm-tree"),
    "sunflower": ("sunflower", "sunflower", "sunflower-1"),
    "tulip": ("tulip", "tulip", "tulip"),
    "maple-leaf": ("maple leaf", "mapleleaf", "maple-leaf"),
    "soccer-ball": ("soccer ball", "soccerball", None),
    "anchor": ("anchor", "anchor", "anchor"),
    "panda": ("panda", "pandaface", "panda-face"),
}


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--npm", type=Path, required=True, help="a node_modules directory")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="the zip to write")
    parser.add_argument("--size", type=int, default=128, help="longer side of a sprite, pixels")
    parser.add_argument("--sheet", type=Path, help="also write a concept by style overview (PNG)")
    args = parser.parse_args()

    files: dict[str, bytes] = {}
    index: dict[str, Any] = {
        "concepts": [readable for readable, _, _ in CONCEPTS.values()],
        "test_style": TEST_STYLE,
        "styles": {},
        "sprites": [],
    }
    pictures: dict[tuple[str, str], Image.Image] = {}
    for style in SETS:
        package = args.npm / "@iconify-json" / style
        index["styles"][style] = read_licence(package)
        icons = json.loads((package / "icons.json").read_text(encoding="utf-8"))
        for common, (readable, _, _) in CONCEPTS.items():
            icon = icon_name(common, style)
            if icon is None:
                continue
            image = trim(render(icons, icon, args.size), args.size)
            path = f"{style}/{common}.webp"
            files[path] = encode(image)
            pictures[common, style] = image
            index["sprites"].append(
                {
                    "file": path,
                    "concept": readable,
                    "style": style,
                    "icon": icon,
                    "licence": index["styles"][style]["licence"],
                }
            )
    files["index.json"] = json.dumps(index, indent=1, sort_keys=True).encode()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(pack(files))
    if args.sheet is not None:
        contact_sheet(pictures).save(args.sheet)
    size = args.out.stat().st_size
    print(f"{len(files) - 1} sprites, {len(CONCEPTS)} concepts, {size} bytes: {args.out}")
    if size > MAX_BYTES:
        sys.exit(f"{args.out} is larger than {MAX_BYTES} bytes: lower --size")


def read_licence(package: Path) -> dict[str, str]:
    """The set's title, author, project, version and licence; exits if the licence is refused."""
    info = json.loads((package / "info.json").read_text(encoding="utf-8"))
    spdx = info["license"].get("spdx")
    if spdx not in ALLOWED_LICENCES:
        sys.exit(f"{package.name}: licence {spdx!r} is not one of {sorted(ALLOWED_LICENCES)}")
    npm = json.loads((package / "package.json").read_text(encoding="utf-8"))
    return {
        "title": info["name"],
        "author": info["author"]["name"],
        "project": info["author"]["url"],
        "licence": spdx,
        "licence_url": info["license"]["url"],
        "package": f"{npm['name']}@{npm['version']}",
    }


def icon_name(common: str, style: str) -> str | None:
    """The name under which ``style`` keeps the concept ``common``, or None if it has none."""
    _, fxemoji, streamline = CONCEPTS[common]
    return {"fxemoji": fxemoji, "streamline-emojis": streamline}.get(style, common)


def render(icons: dict[str, Any], name: str, size: int) -> Image.Image:
    """Draw one icon of an Iconify set as an RGBA image, ``size`` pixels high."""
    while name in icons.get("aliases", {}):
        name = icons["aliases"][name]["parent"]
    icon = icons["icons"][name]
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}" viewBox="{box}" color="#000">{icon["body"]}</svg>'
    )
    png = resvg_py.svg_to_bytes(
        svg_string=svg, width=round(size * width / height), height=size, skip_system_fonts=True
    )
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def trim(image: Image.Image, size: int) -> Image.Image:
    """Cut to the alpha bounding box; the longer side becomes at most ``size`` pixels."""
    box = image.getchannel("A").point(lambda alpha: 255 if alpha > 8 else 0).getbbox()
    image = image.crop(box)
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    return image


def encode(image: Image.Image) -> bytes:
    """A high quality WebP; the alpha channel is lossless."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=90, alpha_quality=100, method=6)
    return buffer.getvalue()


def pack(files: dict[str, bytes]) -> bytes:
    """A zip of ``files`` whose bytes depend on nothing but its contents."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, TIMESTAMP), files[name])
    return buffer.getvalue()


def contact_sheet(pictures: dict[tuple[str, str], Image.Image], cell: int = 60) -> Image.Image:
    """All sprites on grey, one row for each concept and one column for each style."""
    sheet = Image.new("RGB", (cell * len(SETS), cell * len(CONCEPTS)), (200, 205, 210))
    for row, common in enumerate(CONCEPTS):
        for column, style in enumerate(SETS):
            if (common, style) in pictures:
                sprite = pictures[common, style].copy()
                sprite.thumbnail((cell - 4, cell - 4))
                sheet.paste(sprite, (column * cell + 2, row * cell + 2), sprite)
    return sheet


if __name__ == "__main__":
    main()
