"""The life of a managed server, with a stand-in for vLLM: real processes, ports and signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from fake_servers import Habits, ask, journal, running, server, started_with

from medix_eval.errors import ConfigError, ServerError
from medix_eval.models.server_process import is_free
from medix_eval.models.vllm_args import parse_vllm_args
from medix_eval.models.vllm_server import kept_servers
from medix_eval.phantom.dataset import model_folder

pytestmark = pytest.mark.usefixtures("fake_vllm")


def test_a_server_answers_and_is_gone_afterwards(tmp_path: Path) -> None:
    (answer,) = ask(server(), tmp_path)

    said = started_with(tmp_path)
    port = int(said["argv"][said["argv"].index("--port") + 1])
    assert "Which side?" in (answer.text or "")
    assert is_free(port)
    assert running(tmp_path) == []
    assert journal(tmp_path) == ["model starts", "model ends"]


def test_a_server_is_told_to_call_nobody_and_to_stay_on_its_gpus(tmp_path: Path) -> None:
    ask(server(gpus=("2", "3")), tmp_path)

    env = started_with(tmp_path)["env"]
    assert (env["VLLM_NO_USAGE_STATS"], env["DO_NOT_TRACK"]) == ("1", "1")
    assert env["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_the_context_is_what_the_protocol_needs_and_never_more_than_the_model_has(
    tmp_path: Path,
) -> None:
    long = shutil.copytree(model_folder(), tmp_path / "long")
    config = json.loads((long / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 262_144
    (long / "config.json").write_text(json.dumps(config))
    (long / "tokenizer_config.json").write_text("{}")

    assert server().identity()["engine"]["max_model_len"] == 1024
    assert server(location=str(long)).identity()["engine"]["max_model_len"] == 32_768 + 64


def test_a_log_is_kept_and_only_the_user_can_read_it(tmp_path: Path) -> None:
    ask(server(), tmp_path)
    ask(server(), tmp_path)

    log = tmp_path / "vllm-candidate.log"
    assert log.read_text().count('"argv"') == 2
    assert log.stat().st_mode & 0o077 == 0


def test_a_server_that_dies_at_start_says_why(fake_vllm: Habits, tmp_path: Path) -> None:
    fake_vllm("small")

    with pytest.raises(ServerError, match="died while starting") as error:
        ask(server(), tmp_path)

    assert "No available memory for the cache blocks" in str(error.value)
    assert str(error.value).endswith("See root cause above.")
    assert "Errno 24" not in str(error.value)
    assert "too little memory" in error.value.hint


def test_a_server_that_never_becomes_ready_is_ended(fake_vllm: Habits, tmp_path: Path) -> None:
    fake_vllm("slow")

    with pytest.raises(ServerError, match=r"not ready within 1\.5 s \(--server-timeout\)"):
        ask(server(start_timeout_s=1.5), tmp_path)

    assert running(tmp_path) == []


def test_a_server_is_not_blamed_for_what_an_earlier_one_said(
    fake_vllm: Habits, tmp_path: Path
) -> None:
    fake_vllm("small")
    with pytest.raises(ServerError):
        ask(server(), tmp_path)
    fake_vllm("slow")

    with pytest.raises(ServerError) as error:
        ask(server(start_timeout_s=1), tmp_path)

    assert "No available memory" not in str(error.value)


def test_a_server_that_dies_midway_is_found_dead(fake_vllm: Habits, tmp_path: Path) -> None:
    fake_vllm("mortal")

    with pytest.raises(ServerError, match=r"(?s)died \(status 1\).*the engine fell over"):
        ask(server(), tmp_path, times=6)


def test_another_server_on_the_port_is_not_taken_for_ours(
    fake_vllm: Habits, tmp_path: Path
) -> None:
    fake_vllm("impostor")

    with pytest.raises(ServerError, match="answers, but not the vLLM server of phantom"):
        ask(server(), tmp_path)


def test_a_port_that_is_taken_is_refused_before_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        args = parse_vllm_args(f"--port {port}", flag="--vllm-args")

        with pytest.raises(ConfigError, match=f"port {port} is taken"):
            ask(server(args=args), tmp_path)


@pytest.mark.slow
def test_whatever_a_server_has_started_ends_with_it(fake_vllm: Habits, tmp_path: Path) -> None:
    """Also what ignores a SIGTERM, and what has left the group."""
    fake_vllm("parent")

    ask(server(), tmp_path)

    assert running(tmp_path) == []


@pytest.mark.slow
def test_a_kept_server_answers_the_next_run_of_the_same_model(tmp_path: Path) -> None:
    keeping = server(keep_in=tmp_path / "kept")
    other = replace(keeping, args=parse_vllm_args("--max-num-seqs 4", flag="--vllm-args"))

    for source in (keeping, keeping, other):
        ask(source, tmp_path)
    kept = list(kept_servers(tmp_path / "kept"))
    for one in kept:
        os.kill(one.pid, signal.SIGTERM)
        os.waitpid(one.pid, 0)

    assert len(kept) == 2
    assert Counter(journal(tmp_path)) == {"model starts": 2, "model ends": 2}
    assert list(kept_servers(tmp_path / "kept")) == []


def test_a_model_without_a_chat_template_is_refused_before_the_start(tmp_path: Path) -> None:
    folder = shutil.copytree(model_folder(), tmp_path / "plain")
    (folder / "chat_template.jinja").unlink()
    plain = server(location=str(folder))

    with pytest.raises(ConfigError, match="has no chat template"):
        plain.identity()

    given = parse_vllm_args("--chat-template mine.jinja", flag="--vllm-args")
    assert replace(plain, args=given).identity()["engine"]["args"] == {
        "chat-template": "mine.jinja"
    }


def test_arguments_that_only_place_the_work_are_not_in_the_identity() -> None:
    given = "-tp 2 --gpu-memory-utilization 0.8 --max_num_seqs=4 --port 8123"
    args = parse_vllm_args(given, flag="--vllm-args")

    assert server(args=args).identity() == server().identity()


@pytest.mark.parametrize(
    "given", ["--quantization fp8", "--dtype half", "--max-model-len 512", "--some-future-flag"]
)
def test_whatever_else_is_passed_on_is_in_the_identity(given: str) -> None:
    args = parse_vllm_args(given, flag="--vllm-args")

    assert server(args=args).identity() != server().identity()
