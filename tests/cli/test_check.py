"""`gradtoken check`."""

from __future__ import annotations

from tests.cli.program import json_lines


def test_check_as_json() -> None:
    (result,) = json_lines("check", "demo")
    assert result["works"] is True
    assert result["grid"] == [14, 14]


def test_check_reports_activation() -> None:
    name = "timm/vit_tiny_patch16_224"
    (result,) = json_lines("check", name)
    assert result["activation"] == "softmax"
    (result,) = json_lines("check", name, "--activation", "sigmoid")
    assert result["activation"] == "sigmoid"
