"""The life of a managed server, with a stand-in for vLLM: real processes, ports and signals."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medix_eval.cli import main
from medix_eval.errors import ConfigError, ServerError
from medix_eval.models import gpus, vllm_server
from medix_eval.models.chat import Completion, ModelSource, Prompt, Sampling
from medix_eval.models.kept_servers import kept_servers
from medix_eval.models.resolve import ModelFlags, give_gpus, resolve_model
from medix_eval.models.server_process import is_free
from medix_eval.models.vllm_args import parse_vllm_args
from medix_eval.models.vllm_server import VLLMServer
from medix_eval.phantom import model_folder

FAKE = Path(__file__).parent / "fixtures" / "fake_vllm"
HUB = Path(__file__).parent / "fixtures" / "hub"
QUESTION = Prompt(text="Which side?")
SAMPLING = Sampling(max_tokens=8)
Habits = Callable[[str], None]


@pytest.fixture(autouse=True)
def fake_vllm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Habits]:
    """Put the stand-in where vLLM would be; whatever it leaves behind is a failure."""
    beside = [str(FAKE), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, beside)))
    monkeypatch.syspath_prepend(FAKE)
    monkeypatch.setenv("FAKE_VLLM_JOURNAL", str(tmp_path / "journal"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield lambda habits: monkeypatch.setenv("FAKE_VLLM", habits)
    left = running(tmp_path)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


def running(folder: Path) -> list[int]:
    """List the processes of this test's servers: all have the journal's path in common."""
    wanted = f"FAKE_VLLM_JOURNAL={folder}/".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = wanted in (process / "environ").read_bytes()
        except OSError:
            continue
        if is_ours and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


def journal(folder: Path) -> list[str]:
    lines = (folder / "journal").read_text().splitlines()
    return [" ".join(line.split()[:2]) for line in lines]


def server(**changed: Any) -> VLLMServer:
    settings = {"name": "phantom", "location": str(model_folder()), "role": "model"}
    return VLLMServer(**{**settings, "max_tokens": 64, **changed})


def ask(source: ModelSource, logs: Path, *, times: int = 1) -> list[Completion]:
    async def asking() -> list[Completion]:
        async with source.open(logs) as model:
            return [await model.complete(QUESTION, SAMPLING) for _ in range(times)]

    return asyncio.run(asking())


def started_with(logs: Path) -> dict[str, Any]:
    """Return what the server was started with: its last start in the log."""
    lines = (logs / "vllm-candidate.log").read_text().splitlines()
    said: dict[str, Any] = json.loads([line for line in lines if line.startswith('{"argv"')][-1])
    return said


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


def test_a_server_that_dies_midway_is_found_dead_at_once(fake_vllm: Habits, tmp_path: Path) -> None:
    fake_vllm("mortal")
    started = time.monotonic()

    with pytest.raises(ServerError, match=r"(?s)died \(status 1\).*the engine fell over"):
        ask(server(), tmp_path, times=6)

    assert time.monotonic() - started < 10


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


def run(*argv: str | Path) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in argv])
    code = stopped.value.code
    return code if isinstance(code, int) else 0


def command(out: Path, *more: str) -> list[str]:
    """An evaluation of a few samples whose candidate the stand-in serves."""
    common = ["--model", "phantom", "--backend", "vllm", "--tasks", "rad_vqa", "--out", str(out)]
    return [*common, "--data-root", str(HUB), "--protocol", "rules", *more]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_server_outlives_its_run(
    fake_vllm: Habits, tmp_path: Path, number: signal.Signals
) -> None:
    fake_vllm("deaf parent")
    argv = [sys.executable, "-m", "medix_eval", *command(tmp_path)]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as harness:
        wait_until(lambda: len(running(tmp_path)) == 5)  # with supervisor and two grandchildren
        harness.send_signal(number)
        harness.wait(timeout=20)

    wait_until(lambda: running(tmp_path) == [], seconds=10)


@pytest.mark.slow
def test_a_run_whose_server_dies_goes_on_after_a_restart(
    fake_vllm: Habits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_vllm("mortal")
    died = run(*command(tmp_path / "out", "--concurrency", "2"))
    error = capsys.readouterr().err
    fake_vllm("")
    finished = run(*command(tmp_path / "out"))

    (path,) = (tmp_path / "out").rglob("completions.jsonl")
    answered = Counter(json.loads(line)["sample_id"] for line in path.read_text().splitlines())
    assert (died, finished) == (4, 0)
    assert "the engine fell over" in error
    assert set(answered.values()) == {1}


@pytest.mark.slow
def test_a_server_that_stops_answering_ends_the_run(fake_vllm: Habits, tmp_path: Path) -> None:
    fake_vllm("deaf")

    assert run(*command(tmp_path / "out", "--request-timeout", "1")) == 4
    assert running(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "life"),
    [
        ([], ["model starts", "model ends", "judge starts", "judge ends"]),
        (
            ["--gpus", "0", "--judge-gpus", "1"],
            ["judge starts", "model starts", "model ends", "judge ends"],
        ),
    ],
    ids=["one-device", "two-devices"],
)
def test_two_models_take_turns_unless_each_has_its_own_gpus(
    tmp_path: Path, flags: list[str], life: list[str]
) -> None:
    judge = ["--protocol", "medix", "--judge", "phantom", "--judge-backend", "vllm", "--no-cache"]

    code = run(*command(tmp_path / "out", *judge, *flags))

    assert code == 0
    assert journal(tmp_path) == life


def test_servers_that_need_the_same_device_cannot_both_be_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = ["--protocol", "medix", "--judge", "phantom", "--judge-backend", "vllm"]

    code = run(*command(tmp_path / "out", *judge, "--keep-server"))

    assert code == 2
    assert "--keep-server" in capsys.readouterr().err


@pytest.fixture
def blind(tmp_path: Path) -> Path:
    """A checkpoint whose config knows no images."""
    folder = shutil.copytree(model_folder(), tmp_path / "blind")
    config = json.loads((folder / "config.json").read_text())["text_config"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_model_that_cannot_see_is_refused_for_images(
    blind: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(*command(tmp_path / "out", "--model", str(blind)))

    assert code == 2
    assert "cannot see, and rad_vqa asks about images" in capsys.readouterr().err
    assert not (tmp_path / "journal").exists()


@pytest.mark.slow
def test_a_model_that_cannot_see_can_be_asked_without_the_images_and_is_marked(
    blind: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = command(tmp_path / "out", "--model", str(blind), "--allow-text-only", "--json")

    code = run(*argv)

    scores = json.loads(capsys.readouterr().out)
    completions = next((tmp_path / "out").rglob("completions.jsonl")).read_text()
    assert code == 0
    assert scores["text_only"] is True
    assert "image_url" not in completions
    assert "TEXT ONLY" in next((tmp_path / "out").rglob("report.md")).read_text()


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


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--model other", "--model is not for here"),
        ("--served_model_name=x", "--served-model-name is not for here"),
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
    assert "pip install 'medix-eval[vllm]'" in error.value.hint


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
    with pytest.raises(ConfigError, match="names 1 GPUs, --vllm-args asks for 2"):
        resolved("some/model", gpus="0", vllm_args="--tensor-parallel-size 2")


def test_gpus_are_counted_without_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 0\necho 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    assert gpus.visible_gpus() == ("0", "1")


def wait_until(happened: Callable[[], bool], *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)
