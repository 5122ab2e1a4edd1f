"""The README does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def test_readme_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["explanation"].tokens.shape == (1, 2, 14, 14)
    assert (tmp_path / "first.png").exists()
    assert (tmp_path / "out" / "manifest.json").exists()


def test_readme_has_install_and_test_commands() -> None:
    text = README.read_text()
    for command in (
        "pip install . && gradtoken demo",
        'pip install -c constraints.txt ".[test]" && pytest',
    ):
        assert f"```bash\n{command}\n```" in text


def test_readme_links_lead_to_files() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    local = [target for target in targets if not target.startswith("http")]
    assert len(local) > 5
    for target in local:
        assert (README.parent / target).exists(), target
