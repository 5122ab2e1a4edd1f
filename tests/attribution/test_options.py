"""Checks of methods' options: what each accepts and rejects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from torch import Tensor

from gradtoken.attribution import Method, make_method
from gradtoken.attribution.options import (
    check_fill,
    check_flag,
    check_fraction,
    check_number,
    check_seed,
    check_whole,
    is_number,
)
from gradtoken.errors import MethodError
from gradtoken.targets import Targets
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class Checked(Method):
    """A method with one option, which its tests set."""

    name: ClassVar[str] = "checked"

    option: Any = None

    def __call__(self, trace: Trace, targets: Targets) -> Tensor:
        raise NotImplementedError


@pytest.mark.parametrize("value", [0, -2, 0.5, 1e300])
def test_is_number_accepts_finite_numbers(value: object) -> None:
    assert is_number(value)


@pytest.mark.parametrize("value", [True, None, "1", float("nan"), float("inf"), 1j])
def test_is_number_rejects_other_values(value: object) -> None:
    assert not is_number(value)


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (check_whole, 1),
        (check_whole, 1 << 70),
        (check_fraction, 1e-9),
        (check_fraction, 1),
        (check_number, 0),
        (check_number, 12.5),
        (check_seed, 0),
        (check_seed, (1 << 32) - 1),
        (check_flag, False),
        (check_fill, "black"),
        (check_fill, "blur"),
    ],
)
def test_check_accepts_value_in_range(check: Callable[[Method, str], None], value: object) -> None:
    check(Checked(option=value), "option")


@pytest.mark.parametrize(
    ("check", "value", "words"),
    [
        (check_whole, 0, "checked's option is 0; it must be a whole number from 1 up."),
        (check_whole, 2.0, "checked's option is 2.0; it must be a whole number from 1 up."),
        (check_whole, True, "checked's option is True; it must be a whole number from 1 up."),
        (check_fraction, 0, "checked's option is 0; it must be above 0 and up to 1."),
        (check_fraction, 1.1, "checked's option is 1.1; it must be above 0 and up to 1."),
        (check_fraction, "1", "checked's option is '1'; it must be above 0 and up to 1."),
        (check_number, -1, "checked's option is -1; it must be a number from 0 up."),
        (check_number, float("nan"), "checked's option is nan; it must be a number from 0 up."),
        (check_seed, -1, "checked's option is -1; it must be a whole number from 0 up."),
        (check_seed, 1 << 32, "is 4294967296; it must be below 2 to the power of 32."),
        (check_flag, 1, "checked's option is 1; it can be True or False."),
        (check_fill, "red", "is 'red'; it can be 'black', 'grey', 'mean', 'blur'."),
        (check_fill, None, "is None; it can be 'black', 'grey', 'mean', 'blur'."),
    ],
)
def test_check_rejects_value_out_of_range(
    check: Callable[[Method, str], None], value: object, words: str
) -> None:
    with pytest.raises(MethodError) as caught:
        check(Checked(option=value), "option")
    assert str(caught.value).endswith(words)


@pytest.mark.parametrize(("check", "least"), [(check_whole, 3), (check_number, 0.5)])
def test_check_takes_least_value(check: Callable[..., None], least: float) -> None:
    check(Checked(option=least), "option", least)
    with pytest.raises(MethodError, match=f"from {least} up"):
        check(Checked(option=least - 1), "option", least)


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("rise", {"masks": 0}, "rise's masks is 0; it must be a whole number from 1 up"),
        ("rise", {"keep": 1.5}, "rise's keep is 1.5; it must be above 0 and up to 1"),
        ("smoothgrad", {"noise": 0}, "smoothgrad's noise is 0; it must be above 0"),
        ("occlusion", {"window": 2.5}, "occlusion's window is 2.5; it must be a whole number"),
        ("integrated-gradients", {"steps": -1}, "integrated-gradients's steps is -1"),
        ("vit-cx", {"noise": -0.1}, "vit-cx's noise is -0.1; it must be a number from 0 up"),
        ("vit-cx", {"noise": float("inf")}, "vit-cx's noise is inf; it must be a number from 0"),
        ("vit-cx", {"distance": 0}, "vit-cx's distance is 0; it must be above 0 and up to 1"),
        ("gradient-shap", {"noise": "a"}, "gradient-shap's noise is 'a'; it must be a number from"),
        ("gradient-shap", {"samples": True}, "gradient-shap's samples is True; it must be a whole"),
        ("integrated-gradients", {"baseline": "red"}, "baseline is 'red'; it can be 'black', 'gr"),
        ("occlusion", {"fill": None}, "occlusion's fill is None; it can be 'black', 'grey'"),
        ("smoothgrad", {"seed": -1}, "smoothgrad's seed is -1; it must be a whole number from 0"),
        ("gradient-shap", {"seed": 1 << 32}, "seed is 4294967296; it must be below 2 to the power"),
        ("rise", {"seed": "a"}, "rise's seed is 'a'; it must be a whole number from 0 up"),
        ("vit-cx", {"seed": 0.5}, "vit-cx's seed is 0.5; it must be a whole number from 0 up"),
    ],
)
def test_methods_reject_options_out_of_range(method: str, options: dict, words: str) -> None:
    with pytest.raises(MethodError, match=words):
        make_method(method, **options)
