"""Fuzz one target guided by coverage, with atheris (extra `fuzz`).

    python tools/fuzz/guided.py images -runs=100000 -seed=1

What follows the target goes to libFuzzer (`-runs`, `-max_total_time`, a folder of inputs to keep).
Branches of the target's modules are counted; inputs that reach new ones are kept and changed on. It
stops at the first input that lets out anything but a `GradTokenError`, is too slow, takes too much
memory or leaves a half-written file, and writes that input beside.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from random import Random

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz import target as targets


class BytesRandom(Random):
    """A generator whose draws are read from bytes; where they end, all is zero."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = atheris.FuzzedDataProvider(data)

    def getrandbits(self, count: int) -> int:
        size = (count + 7) // 8
        drawn = self._data.ConsumeBytes(size).ljust(size, b"\0")
        return int.from_bytes(drawn, "little") >> (8 * size - count)

    def random(self) -> float:
        return self.getrandbits(53) / (1 << 53)

    def _randbelow(self, limit: int) -> int:
        """Modulo, for a rejected draw would be repeated for ever where the bytes have ended."""
        return self.getrandbits(limit.bit_length() + 8) % limit


def main() -> None:
    name, rest = sys.argv[1], sys.argv[2:]
    with atheris.instrument_imports(include=_instrumented(name)):
        target = targets.find(name)
        with tempfile.TemporaryDirectory() as folder:
            targets.check(target, Random(f"{name}:0:0"), Path(folder))

    def hand_in(data: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix="gradtoken-fuzz-") as folder:
            found = targets.check(target, BytesRandom(data), Path(folder))
        if found.failed:
            raise AssertionError(f"{found.kind}: {found.detail}")

    limits = [f"-timeout={round(target.seconds) + 5}", "-rss_limit_mb=4096"]
    lengths = ["-max_len=4096", "-len_control=0"]
    atheris.Setup([sys.argv[0], *limits, *lengths, *rest], hand_in)
    atheris.Fuzz()


def _instrumented(name: str) -> list[str]:
    """The modules that a target's file names, found without importing what it imports."""
    import ast

    file = Path(__file__).with_name("targets") / f"{name}.py"
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "instrumented":
            return list(ast.literal_eval(node.value))
    return ["gradtoken"]


if __name__ == "__main__":
    main()
