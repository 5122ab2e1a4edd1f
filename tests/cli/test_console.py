"""How an error is printed."""

from __future__ import annotations

import pytest

from gradtoken.cli.console import complain


def test_complain_prints_one_line_without_markup(capsys: pytest.CaptureFixture[str]) -> None:
    complain("cannot read\n[bold]a.png[/]" + " and more" * 60)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: cannot read [bold]a.png[/]" + " and more" * 60 + "\n"
