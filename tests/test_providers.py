"""Models at a provider that a file lists: where they are asked, with which key, and when not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from medix_eval.evaluation.api import judge_choices
from medix_eval.models import resolve as providers
from medix_eval.models.openai_server import OpenAIServer
from medix_eval.models.resolve import ModelFlags, load_providers, resolve_model
from medix_eval.testing import ScriptedServer

HUB = Path(__file__).parent / "fixtures" / "hub"
MODEL = "lab/model:free"
ASK = ("--model", f"toy:{MODEL}", "--tasks", "medqa", "--limit", "2", "--data-root", HUB)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(lambda _: "<answer>A</answer>", model=MODEL) as running:
        yield running


@pytest.fixture(autouse=True)
def _listed(tmp_path: Path, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {
        "toy": {"base_url": server.url, "key_env": "TOY_KEY"},
        "far": {"base_url": "https://far.invalid/v1", "key_env": "TOY_KEY"},
    }
    file = tmp_path / "providers.yaml"
    file.write_text(yaml.safe_dump(listed), encoding="utf-8")
    monkeypatch.setattr(providers, "_FILE", file)
    monkeypatch.setenv("TOY_KEY", "secret")


def test_a_model_at_a_provider_is_asked_and_keeps_its_name(
    run: Run, server: ScriptedServer, tmp_path: Path
) -> None:
    code, out, err = run(*ASK, "--protocol", "rules", "--json", "--out", tmp_path / "out")

    assert code == 0, err
    assert json.loads(out)["model"] == f"toy:{MODEL}"
    assert [request["model"] for request in server.requests] == [MODEL] * 2


def test_a_judge_at_a_provider_judges(run: Run, server: ScriptedServer, tmp_path: Path) -> None:
    code, out, err = run(*ASK, "--judge", f"toy:{MODEL}", "--json", "--out", tmp_path / "out")

    assert code == 1, err  # it says no verdict
    assert json.loads(out)["judges"][0]["id"] == f"toy:{MODEL}"
    assert len(server.requests) > 2


def test_without_its_key_nothing_is_asked(
    run: Run, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOY_KEY")
    code, _, err = run(*ASK, "--protocol", "rules", "--out", tmp_path / "out")

    assert code == 2
    assert err.splitlines()[0].endswith("the environment variable TOY_KEY is empty or unset")
    assert server.requests == []


def test_a_provider_has_its_address_already(run: Run, tmp_path: Path) -> None:
    code, _, err = run(*ASK, "--base-url", "http://x/v1", "--out", tmp_path / "out")

    assert code == 2
    assert "--base-url is for openai:NAME, but toy is at http://127.0.0.1" in err


def test_restricted_data_stays_off_a_provider(run: Run, tmp_path: Path) -> None:
    task = "mimic_cxr_report_summarization"
    code, _, err = run(
        *("--model", "far:model", "--tasks", task, "--data-root", HUB),
        *("--protocol", "rules", "--out", tmp_path / "out"),
    )

    assert code == 2
    assert f"{task}: restricted data may not be sent to far.invalid" in err


def test_the_key_may_be_in_another_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER", "secret")
    monkeypatch.delenv("TOY_KEY")
    source = resolve_model("toy:m", ModelFlags(role="model", key_env="OTHER"), max_tokens=8)

    assert isinstance(source, OpenAIServer)
    assert source.key_env == "OTHER"


def test_a_folder_that_is_named_like_a_provider_runs_here() -> None:
    choices = judge_choices(["toy", "openai:x"], {"judge_backend": "hf"})

    assert [choice.flags.backend for choice in choices] == ["hf", None]


def test_a_name_that_is_no_model_is_told_the_providers(run: Run) -> None:
    code, _, err = run("--model", "toi:model", "--tasks", "medqa", "--protocol", "rules")

    assert code == 2
    assert "at a provider: far:NAME, toy:NAME" in err


def test_every_provider_of_ours_is_reached_safely_and_told_of_in_the_readme(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "_FILE", Path(providers.__file__).with_name("providers.yaml"))
    readme = (repository / "README.md").read_text(encoding="utf-8")
    listed = load_providers()

    assert "openrouter" in listed
    assert not {"openai", "replay"} & listed.keys()
    assert all(one.base_url.startswith("https://") for one in listed.values())
    assert all(f"`{name}`" in readme for name in listed if name != "openrouter")
