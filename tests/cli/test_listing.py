"""`gradtoken models` and `gradtoken methods`."""

from __future__ import annotations

import pytest

import gradtoken
from tests.cli.program import json_lines, run_main


def test_models_and_methods_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_main(capsys, "models", "dinov2")
    assert code == 0
    assert "timm/vit_small_patch14_dinov2" in out.split()
    assert all("dinov2" in name for name in out.split())
    code, out, _ = run_main(capsys, "methods")
    assert code == 0
    for word in ("gradtoken", "raw-attention", "rollout", "beta=0.5", "Neural Networks"):
        assert word in out


def test_models_and_methods_as_json() -> None:
    (names,) = json_lines("models", "dinov2")
    assert "timm/vit_small_patch14_dinov2" in names
    (methods,) = json_lines("methods")
    assert [method["name"] for method in methods] == list(gradtoken.methods())
    assert methods[0]["options"]["beta"] == 0.5
    assert methods[0]["presets"]["faithful"]["depth"] == 0
