"""The audit of dependencies fails for holes only, and never says "none" where it does not know."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import audit
import pytest

_SOUND = {"name": "a", "version": "1", "vulns": []}
_SKIPPED = {"name": "b", "skip_reason": "not found"}
_INSTALLER = {"name": "pip", "version": "1", "vulns": [{"id": "X-2", "fix_versions": ["2"]}]}
_HOLE = {"name": "c", "version": "2", "vulns": [{"id": "X-1", "fix_versions": ["3"]}]}


@pytest.mark.parametrize(
    ("packages", "holes", "unknown"),
    [
        ([_SOUND, _SKIPPED], [], None),
        ([_SOUND, _INSTALLER], [], None),
        ([_SOUND, _HOLE], ["c 2: X-1, mended in 3"], None),
        ([_SKIPPED], [], "the service knows none of 1 packages"),
        (None, [], "cannot connect"),
    ],
    ids=["sound", "the installer's", "hole", "nothing known", "no service"],
)
def test_audit_lists_holes_and_unknowns(
    monkeypatch: pytest.MonkeyPatch, packages: Any, holes: list[str], unknown: str | None
) -> None:
    def report(command: list[str], **_: Any) -> Any:
        if packages is not None:
            place = Path(command[command.index("--output") + 1])
            place.write_text(json.dumps({"dependencies": packages}))
        return subprocess.CompletedProcess(command, 1, "", "warning\ncannot connect")

    monkeypatch.setattr(subprocess, "run", report)
    assert audit.audit(1) == (holes, unknown)


def test_audit_gives_up_after_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], timeout: float, **_: Any) -> Any:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    assert audit.audit(2.5) == ([], "no answer within 2.5 s")
