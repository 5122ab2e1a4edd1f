"""Shell completion of names."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import gradtoken
from gradtoken.cli import completion
from tests.cli.program import PROGRAM


def test_completion_of_methods_and_models() -> None:
    assert set(completion.methods("")) == set(gradtoken.methods())
    assert completion.methods("grad-r") == ["grad-rollout"]
    assert completion.models("d") == ["demo"]
    assert "timm/vit_base_patch16_224" in completion.models("timm/vit_base")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[0] = 'gradtoken'; {PROGRAM[-1]}"],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "_GRADTOKEN_COMPLETE": "complete_bash",
            "COMP_WORDS": "gradtoken explain --method grad-s",
            "COMP_CWORD": "3",
        },
        check=False,
    )
    assert "grad-sam" in done.stdout


def test_methods_are_completed_without_installed_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "entry_points", lambda group: [])
    assert completion.methods("roll") == ["rollout"]


def test_completion_of_methods_does_not_import_torch() -> None:
    script = (
        "import sys; from gradtoken.cli import completion; "
        "assert completion.methods('roll') == ['rollout']; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
