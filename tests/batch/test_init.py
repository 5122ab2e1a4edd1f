"""Names of the package `gradtoken.batch`."""

from __future__ import annotations

import pytest

import gradtoken.batch


@pytest.mark.parametrize("name", gradtoken.batch.__all__)
def test_every_name_is_imported_when_it_is_used(name: str) -> None:
    assert getattr(gradtoken.batch, name).__name__ == name


def test_asked_is_a_deprecated_alias() -> None:
    with pytest.warns(DeprecationWarning, match=r"Asked is deprecated; use .*\.TargetSpec"):
        assert gradtoken.batch.Asked is gradtoken.batch.TargetSpec


def test_unknown_names_raise() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Aksed'"):
        gradtoken.batch.Aksed  # noqa: B018
