"""Bring constraints.txt to the newest allowed versions, if the gate passes with them.

    python tools/update_constraints.py

Runs `.ci/run --newest`: a fresh environment, the whole suite, lint, types, docs, the audit and the
demo. Only when all of it passes is constraints.txt written, and what changed is printed; otherwise
the file stays as it is and the exit code is that of the gate. Needs Python 3.11 on Linux x86-64,
which is what the file is for, and 12 GB of disk.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
HEADER = """\
# The tested set: every package that ".[dev]" installs, for Python 3.11 on Linux x86-64.
# Written by tools/update_constraints.py when the whole gate has passed with these versions.
"""

_PLATFORM = ("3.11", "Linux", "x86_64")
_PINNED = re.compile(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!]+)")


class UpdateError(Exception):
    """Why the file was not written."""


def pins(text: str) -> dict[str, str]:
    """The version of each package of a frozen listing; comments and empty lines are left out.

    Raises:
        UpdateError: a line that is no `name==version`, such as one with a path, an address, or a
            build that is of one machine alone (`+cpu`).
    """
    versions = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        pin = _PINNED.fullmatch(line.strip())
        if pin is None:
            raise UpdateError(f"{line!r} is not NAME==VERSION, so nobody else could install it")
        versions[pin[1]] = pin[2]
    return versions


def changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """One line for each package that came, went or has another version."""
    return [
        f"{name}: {before.get(name, 'new')} -> {after.get(name, 'gone')}"
        for name in sorted(before.keys() | after.keys(), key=str.lower)
        if before.get(name) != after.get(name)
    ]


def written(versions: dict[str, str]) -> str:
    """The file's text."""
    names = sorted(versions, key=str.lower)
    return HEADER + "".join(f"{name}=={versions[name]}\n" for name in names)


def update(constraints: Path = CONSTRAINTS, gate: Path = ROOT / ".ci" / "run") -> list[str]:
    """Run the gate with the newest versions, write the file, and tell what changed.

    Raises:
        UpdateError: if the gate fails, or lists something that cannot be pinned.
    """
    with tempfile.TemporaryDirectory() as folder:
        frozen = Path(folder) / "frozen.txt"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        command = ["bash", str(gate), "--newest", "--freeze", str(frozen)]
        done = subprocess.run(command, env={**os.environ, "PATH": path})
        if done.returncode:
            raise UpdateError(f"the gate failed with the newest versions ({done.returncode})")
        after = pins(frozen.read_text())
    before = pins(constraints.read_text())
    partial = constraints.with_suffix(".partial")
    partial.write_text(written(after))
    partial.replace(constraints)
    return changes(before, after)


def main() -> int:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    here = (f"{sys.version_info.major}.{sys.version_info.minor}", platform.system())
    if (*here, platform.machine()) != _PLATFORM:
        print(f"error: constraints.txt is for {' '.join(_PLATFORM)}, not {here}", file=sys.stderr)
        return 2
    try:
        print("\n".join(update()) or "constraints.txt has the newest versions already")
    except UpdateError as error:
        print(f"error: {error}; constraints.txt is as it was", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
