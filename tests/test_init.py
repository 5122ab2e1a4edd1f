"""The names that the package exports."""

from __future__ import annotations

import gradtoken


def test_exported_names_exist() -> None:
    for name in gradtoken.__all__:
        assert getattr(gradtoken, name) is not None
    assert callable(gradtoken.methods)
    assert callable(gradtoken.coupling)
    assert set(gradtoken._HOMES) == set(gradtoken.__all__)
