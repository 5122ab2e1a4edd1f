"""`gradtoken bench` with groups of metrics that ask a fine-tuned model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import gradtoken
from gradtoken.cli.tuned_models import TunedOptions
from gradtoken.errors import MethodError, OutputError
from tests.cli.program import invoke, stdout

COMMAND = ("bench", "--methods", "gae,rollout,raw-attention", "--limit", "2", "--json")
ASSETS = Path(gradtoken.__file__).parent / "models" / "assets"


def test_bench_measures_idsds_of_demo_and_agreement(tmp_path: Path) -> None:
    metrics = ("--metrics", "idsds,single-deletion,saco,relevance")
    document = json.loads(stdout(*COMMAND, *metrics, "--out", tmp_path))
    rows = {(row["method"], row["metric"]): row for row in document["summary"]}
    assert {metric for _, metric in rows} == {
        *("idsds", "single_deletion", "saco", "mass_accuracy", "rank_accuracy")
    }
    assert rows["gae", "idsds"]["n"] == rows["gae", "single_deletion"]["n"] >= 4
    assert rows["gae", "idsds"]["mean"] != rows["gae", "single_deletion"]["mean"]
    assert set(document["settings"]["tuned_sha256"]) == {"idsds"}
    assert (tmp_path / "agreement.csv").read_text().startswith("metric,other,spearman")
    assert (tmp_path / "agreement.png").exists()
    with pytest.raises(OutputError, match="holds a run of other settings"):
        stdout(
            *(*COMMAND, *metrics, "--out", tmp_path),
            *("--in-domain-model", str(ASSETS / "demo.safetensors")),
        )


def test_bench_rejects_groups_without_their_model(tmp_path: Path) -> None:
    result = invoke(*COMMAND, "--metrics", "saco,f-fidelity", "--out", tmp_path)
    assert isinstance(result.exception, MethodError)
    assert "f-fidelity needs --f-fidelity-model, a model fine-tuned" in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_all_metrics_leave_out_those_without_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    demo = gradtoken.load("demo", device="cpu")
    groups = TunedOptions().load(demo, ["saco", "idsds", "f-fidelity"], None, every=True)
    assert list(groups) == ["saco", "idsds"]
    assert groups["saco"] is None
    assert groups["idsds"].spec == "demo-in-domain"
    said = " ".join(capsys.readouterr().err.split())
    assert "left out: f-fidelity needs --f-fidelity-model" in said
