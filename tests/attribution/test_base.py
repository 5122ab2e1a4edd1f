"""The base class of methods, and the name of a method in its errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.attribution import Method, make_method
from gradtoken.attribution.base import relevance_of
from gradtoken.errors import MethodError, NotSupportedError
from gradtoken.models import Model
from gradtoken.targets import Targets, resolve
from gradtoken.trace.record import record
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class Failing(Method):
    """A method that raises the error it is given."""

    name: ClassVar[str] = "failing"

    error: Exception

    def __call__(self, trace: Trace, targets: Targets) -> Tensor:
        raise self.error


def recorded(model: Model, batch: Tensor) -> tuple[Trace, Targets]:
    trace = record(model, batch)
    return trace, resolve([1, 2], trace.logits, model.labels)


def test_not_supported_error_has_no_name_of_its_own() -> None:
    error = NotSupportedError("needs a class token; use gradtoken.")
    assert isinstance(error, MethodError)
    assert error.reason == "needs a class token; use gradtoken."
    assert str(error) == "this method needs a class token; use gradtoken."


def test_relevance_of_equals_call(model: Model, batch: Tensor) -> None:
    trace, targets = recorded(model, batch)
    method = make_method("gradtoken")
    assert torch.equal(relevance_of(method, trace, targets), method(trace, targets))


def test_relevance_of_names_method_once(model: Model, batch: Tensor) -> None:
    reason = "needs a class token; use gradtoken."
    with pytest.raises(MethodError) as caught:
        relevance_of(Failing(error=NotSupportedError(reason)), *recorded(model, batch))
    assert str(caught.value) == f"failing {reason}"
    assert not isinstance(caught.value, NotSupportedError)


def test_relevance_of_passes_other_errors_on(model: Model, batch: Tensor) -> None:
    error = MethodError("failing has no rule for pow.")
    with pytest.raises(MethodError) as caught:
        relevance_of(Failing(error=error), *recorded(model, batch))
    assert caught.value is error


def test_explain_names_method_that_is_not_supported(model: Model, batch: Tensor) -> None:
    method = Failing(error=NotSupportedError("needs a class token; use gradtoken."))
    with pytest.raises(MethodError, match=r"^failing needs a class token; use gradtoken\.$"):
        gradtoken.explain(model, batch, 1, method=method)
