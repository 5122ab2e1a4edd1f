"""The command `gradtoken batch`."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from gradtoken.errors import GradTokenError


def test_batch_command_runs_resumes_and_reports(folder: Path, tmp_path: Path) -> None:
    from gradtoken.cli.app import app

    def call(*arguments: str) -> object:
        return CliRunner().invoke(app, ["batch", *arguments])

    common = ("--targets", "top:2", "--shard-size", "4", "--threads", "1")
    out = str(tmp_path / "out")
    result = call(str(folder), "--out", out, *common)
    assert result.exit_code == 1
    assert "1 of 10 images could not be explained" in result.output
    assert "10 images, 19 rows in 3 shards" in result.output
    result = call(str(folder), "--out", out, *common)
    assert isinstance(result.exception, GradTokenError)
    result = call("run", str(folder), "--out", out, *common, "--resume", "--json")
    assert '"resumed": 3' in result.output
    result = call("report", out)
    assert result.exit_code == 0
    assert (tmp_path / "out" / "report.md").exists()
    (folder / "004.png").unlink()
    result = call(str(folder), "--out", str(tmp_path / "good"), *common, "--quiet")
    assert (result.exit_code, result.output) == (0, "")
