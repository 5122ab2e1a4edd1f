"""The journal of finished shards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.batch.conftest import shards, start


@pytest.mark.parametrize("value", ["1", 1.5, None, -1, True, [2]])
def test_journal_ignores_invalid_lines(folder: Path, tmp_path: Path, value: object) -> None:
    out = tmp_path / "out"
    start(folder, out)
    before = shards(out)
    journal = next((out / "done").iterdir())
    notes = [json.loads(line) for line in journal.read_text().splitlines()]
    journal.write_text("".join(json.dumps({**note, "rows": value}) + "\n" for note in notes))
    assert start(folder, out, resume=True).resumed == 0
    assert shards(out) == before
