"""The names that the package exports."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest

import gradtoken


def test_exported_names_exist() -> None:
    for name in gradtoken.__all__:
        assert getattr(gradtoken, name) is not None
    assert callable(gradtoken.methods)
    assert callable(gradtoken.coupling)
    assert set(gradtoken._HOMES) == set(gradtoken.__all__)


@pytest.mark.parametrize(
    ("name", "successor"),
    [
        ("captum", "gradtoken.adapters.captum.Attribution"),
        ("quantus", "gradtoken.adapters.quantus.quantus_explain_func"),
    ],
)
def test_former_module_names_warn(name: str, successor: str) -> None:
    sys.modules.pop(f"gradtoken.{name}", None)
    vars(gradtoken).pop(name, None)
    with pytest.warns(DeprecationWarning, match=successor.rpartition(".")[0]):
        module = getattr(gradtoken, name)
    module_name, _, attribute = successor.rpartition(".")
    assert getattr(module, attribute) is getattr(import_module(module_name), attribute)
