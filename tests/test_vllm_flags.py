"""Which models vLLM serves, on which GPUs, and which of its arguments and flags are refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from medix_eval.errors import ConfigError
from medix_eval.models import checkpoint as gpus
from medix_eval.models import vllm_server
from medix_eval.models.chat import ModelSource
from medix_eval.models.resolve import ModelFlags, give_gpus, resolve_model
from medix_eval.models.vllm_args import parse_vllm_args
from medix_eval.models.vllm_server import VLLMServer

pytestmark = pytest.mark.usefixtures("fake_vllm")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--model other", "--model is reserved"),
        ("--served_model_name=x", "--served-model-name is reserved"),
        ("2 --tensor-parallel-size", "begins with '2'"),
        ("--tensor-parallel-size two", "'two' is not a whole number"),
        ("--hf-overrides '{", "No closing quotation"),
    ],
)
def test_arguments_that_vllm_cannot_be_given_are_refused(given: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_vllm_args(given, flag="--vllm-args")


def resolved(name: str, **flags: Any) -> ModelSource:
    role = flags.pop("role", "model")
    return resolve_model(name, ModelFlags(role=role, **flags), max_tokens=64)


def test_a_path_in_an_argument_is_known_by_its_name_and_tells_no_folder() -> None:
    one, two, plain = (
        parse_vllm_args(f"--chat-template {path} --dtype half", flag="").moving_a_score
        for path in ("/data/mine/a/t.jinja", "/data/mine/b/t.jinja", "t.jinja")
    )

    assert one["chat-template"] != two["chat-template"]
    assert one["chat-template"].startswith("t.jinja (")
    assert "mine" not in one["chat-template"]
    assert (one["dtype"], plain["chat-template"]) == ("half", "t.jinja")
    lora = parse_vllm_args("--lora-modules a=/data/mine/x b=/data/mine/y", flag="").moving_a_score
    assert "mine" not in lora["lora-modules"]


def test_vllm_serves_what_it_can_if_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def kind(name: str, **flags: Any) -> str:
        return type(resolved(name, **flags)).__name__

    assert kind("some/model") == "VLLMServer"
    assert kind("some/model", backend="hf") == "TransformersModel"
    assert kind("phantom") == "TransformersModel"
    assert kind("phantom", backend="vllm") == "VLLMServer"
    monkeypatch.setattr(vllm_server, "find_spec", lambda _: None)
    assert kind("some/model") == "TransformersModel"
    with pytest.raises(ConfigError, match="vLLM is not installed") as error:
        kind("some/model", backend="vllm")
    assert "`pip install '.[vllm]'`" in error.value.hint


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("openai:x", {"base_urls": ("http://x/v1",), "backend": "vllm"}),
        ("openai:x", {"base_urls": ("http://x/v1",), "gpus": "0"}),
        ("replay:x.jsonl", {"vllm_args": "--seed 1"}),
        ("phantom", {"gpus": "0"}),
    ],
)
def test_a_flag_for_vllm_is_refused_where_it_would_do_nothing(
    name: str, flags: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="is for models that vLLM serves"):
        resolved(name, **flags)


@pytest.mark.parametrize(
    ("visible", "candidate", "judge", "given"),
    [
        ("0", {}, {}, ((), ())),
        ("0,1", {}, {}, (("0",), ("1",))),
        ("4,5,6", {"vllm_args": "-tp 2"}, {}, (("4", "5"), ("6",))),
        ("0,1,2", {"vllm_args": "-tp 2"}, {"vllm_args": "-tp 2"}, ((), ())),
        ("0,1", {"gpus": "1"}, {}, (("1",), ("0",))),
        ("0,1", {}, {"gpus": "0"}, (("1",), ("0",))),
        ("0,1", {"gpus": "1"}, {"gpus": "1"}, (("1",), ("1",))),
    ],
)
def test_each_model_has_its_own_gpus_where_there_are_enough(
    monkeypatch: pytest.MonkeyPatch,
    visible: str,
    candidate: dict[str, Any],
    judge: dict[str, Any],
    given: tuple[tuple[str, ...], tuple[str, ...]],
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    models = give_gpus(
        [resolved("some/model", **candidate), resolved("some/judge", role="judge", **judge)]
    )

    assert tuple(model.gpus for model in models if isinstance(model, VLLMServer)) == given


def test_more_gpus_asked_for_than_named_is_refused() -> None:
    with pytest.raises(ConfigError, match="is too few: --vllm-args asks for 2"):
        resolved("some/model", gpus="0", vllm_args="--tensor-parallel-size 2")


def test_gpus_are_counted_without_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 0\necho 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    assert gpus.visible_gpus() == ("0", "1")
