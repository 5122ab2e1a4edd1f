"""What a run is and what of it is done, on disk beside its results."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from gradtoken.batch.plan import Plan
from gradtoken.batch.results.folder import Folder
from gradtoken.errors import OutputError

MANIFEST = "manifest.json"
DATA = "data"
DONE = "done"
_LINES = 1000
_SECONDS = 2.0
"""Finished shards are noted at most this much later, so a kill costs no more work than that."""


@dataclass(frozen=True)
class Done:
    """A shard that is finished.

    Args:
        shard: its number.
        pictures: it has.
        rows: of its file, one for each picture and target.
        errors: pictures that could not be explained.
        bytes: of its file.
        sha256: of its file.
    """

    shard: int
    pictures: int
    rows: int
    errors: int
    bytes: int
    sha256: str


def shard_name(shard: int) -> str:
    """The file of a shard, in the folder of a run."""
    return f"{DATA}/{shard:08d}.parquet"


def write_manifest(folder: Folder, settings: dict[str, Any], plan: Plan) -> None:
    """Note what a run is. It is written once, before its first shard."""
    record = {"settings": settings, "plan": asdict(plan)}
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    folder.write(MANIFEST, text.encode("utf-8", "replace"))


def read_manifest(folder: Folder) -> tuple[dict[str, Any], Plan] | None:
    """The settings and the plan of the run in a folder, or None if there is none.

    Raises:
        OutputError: if there is one that cannot be read.
    """
    content = folder.read(MANIFEST)
    if content is None:
        return None
    try:
        record = json.loads(content)
        plan = record["plan"]
        pieces = tuple(str(piece) for piece in plan["pieces"])
        found = Plan(int(plan["shard_size"]), int(plan["pictures"]), pieces)
        settings = record["settings"]
        if found.shard_size < 1 or found.pictures < 1 or not isinstance(settings, dict):
            raise ValueError
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise OutputError(
            f"{folder.path(MANIFEST)} is damaged; start the run anew in another folder."
        ) from None
    return settings, found


def check_settings(before: dict[str, Any], now: dict[str, Any], folder: Folder) -> None:
    """Refuse to go on with other settings.

    Raises:
        OutputError: names what differs.
    """
    now = json.loads(json.dumps(now))
    differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if differing:
        told = "; ".join(
            f"{key} was {_brief(before.get(key))} and is {_brief(now.get(key))}"
            for key in differing
        )
        raise OutputError(
            f"{folder.name} holds a run of other settings ({told}); resume with the same ones, or "
            "give another --out."
        )


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


@dataclass
class Journal:
    """The shards that are done, in files of a thousand lines that are written whole each time.

    A file is replaced at most every two seconds, and when the run ends in whatever way but a kill.
    A shard that a kill left out is made again, to the same bytes.
    """

    folder: Folder
    done: dict[int, Done] = field(default_factory=dict)
    _number: int = 0
    _lines: list[str] = field(default_factory=list)
    _written: float = 0.0
    _saved: int = 0

    @classmethod
    def read(cls, folder: Folder, plan: Plan) -> Journal:
        """The journal of a folder; entries whose file is not there as noted are left out."""
        journal = cls(folder)
        sizes = folder.sizes(DATA)
        for name in sorted(folder.sizes(DONE)):
            if name.removesuffix(".jsonl").isdecimal():
                journal._number = int(name.removesuffix(".jsonl")) + 1
            for line in (folder.read(f"{DONE}/{name}") or b"").splitlines():
                done = _noted(line)
                if done is None:
                    continue
                there = sizes.get(f"{done.shard:08d}.parquet") == done.bytes
                if there and 0 <= done.shard < plan.shards:
                    journal.done[done.shard] = done
        return journal

    def add(self, done: Done) -> None:
        """Note a shard whose file is in place."""
        self.done[done.shard] = done
        self._lines.append(json.dumps(asdict(done)))
        if time.monotonic() - self._written >= _SECONDS or len(self._lines) >= _LINES:
            self.flush()

    def flush(self) -> None:
        """Bring the notes to the disk."""
        if len(self._lines) == self._saved:
            return
        content = "".join(line + "\n" for line in self._lines)
        self.folder.write(f"{DONE}/{self._number:06d}.jsonl", content.encode())
        self._written, self._saved = time.monotonic(), len(self._lines)
        if len(self._lines) >= _LINES:
            self._number, self._lines, self._saved = self._number + 1, [], 0


def _noted(line: bytes) -> Done | None:
    """A line of the journal, or None if it is none; then its shard is made again."""
    try:
        done = Done(**json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return None
    counts = (done.shard, done.pictures, done.rows, done.errors, done.bytes)
    return done if all(type(count) is int and count >= 0 for count in counts) else None


def write_shard(
    folder: Folder, shard: int, content: bytes, rows: int, counts: tuple[int, int]
) -> Done:
    """Put a shard's file in place.

    Args:
        counts: pictures and errors in it.
    """
    folder.write(shard_name(shard), content)
    digest = hashlib.sha256(content).hexdigest()
    return Done(shard, counts[0], rows, counts[1], len(content), digest)
