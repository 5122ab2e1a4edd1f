"""Every extra that a message or a page names can be installed, also by the pip of Python 3.11."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest

from gradtoken.errors import ModelError
from gradtoken.models.families import FAMILIES, family

ROOT = Path(__file__).parents[2]
NORMALISED = r"[a-z0-9]+(-[a-z0-9]+)*"

_NAMED = re.compile(r"gradtoken\\?\[([^\]]*)\]|\bextras? `([^`]*)`")


@pytest.fixture(scope="module")
def extras(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The extras of the wheel that the build backend makes, in the wheel's own spelling."""
    folder = tmp_path_factory.mktemp("wheel")
    build = f"from hatchling.build import build_wheel; build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = BytesParser().parsebytes(archive.read(name))
    return set(metadata.get_all("Provides-Extra") or ())


def _texts() -> dict[Path, str]:
    files = [*ROOT.glob("*.md"), *(ROOT / "src").rglob("*.py"), ROOT / "pyproject.toml"]
    for folder in ("docs", "examples", "benchmarks", "tools"):
        files += [f for f in (ROOT / folder).rglob("*") if f.suffix in (".md", ".ipynb", ".py")]
    return {file: file.read_text() for file in files}


def _named(text: str) -> set[str]:
    groups = (bracket or quoted for bracket, quoted in _NAMED.findall(text))
    return {name.strip() for group in groups for name in group.split(",")}


def test_extras_have_normalised_names(extras: set[str]) -> None:
    assert {"hf", "clip", "bench", "app", "batch"} <= extras
    assert all(re.fullmatch(NORMALISED, name) for name in extras)


def test_extras_have_the_same_names_in_the_wheel(extras: set[str]) -> None:
    """The backend normalises names in the wheel alone; pip 23.2 does not where it looks for one."""
    text = (ROOT / "pyproject.toml").read_text()
    (table,) = re.findall(r"^\[project\.optional-dependencies\]\n(.*?)^\[", text, flags=re.M | re.S)
    assert set(re.findall(r"^([^\s=]+) = \[", table, flags=re.M)) == extras


def test_extras_named_in_texts_exist(extras: set[str]) -> None:
    named = {(file, name) for file, text in _texts().items() for name in _named(text)}
    assert {name for _, name in named} >= {"hf", "clip", "bench", "lxt", "app", "batch", "fuzz"}
    assert not sorted((str(file), name) for file, name in named if name not in extras)


@pytest.mark.parametrize("name", FAMILIES)
def test_family_names_existing_extra_of_missing_library(
    name: str, extras: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, f"gradtoken.models.{name}", None)
    with pytest.raises(ModelError, match=rf"^{name}/ models need .*install") as caught:
        family(name)
    assert _named(str(caught.value)) <= extras


def test_extras_keep_former_name_of_clip(extras: set[str]) -> None:
    """`gradtoken[open_clip]` is `open-clip` for every pip that normalises what it is given."""
    assert "open-clip" in extras
