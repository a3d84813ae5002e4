"""The phantom model through real vLLM: `make test-vllm`."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import side_by_side as stock
from aiohttp import web
from originals import differing, sent, shown
from pictures import COLLECTION, TASKS, Pixels, differences, images_of, in_request
from PIL import ExifTags, Image

from medix_eval.errors import RequestRejected
from medix_eval.models.chat import Completion, Prompt, Sampling
from medix_eval.models.server_process import HOST
from medix_eval.models.torch_cpu import declare_missing_operators
from medix_eval.models.vllm_args import parse_vllm_args
from medix_eval.models.vllm_server import VLLMServer, kept_servers, remember
from medix_eval.phantom.dataset import model_folder, png, questions
from medix_eval.phantom.dataset import prompt as prompt_of
from medix_eval.records import Kind
from medix_eval.storage.images import as_rgb, as_sent
from medix_eval.testing import prompt_text, serving

pytestmark = pytest.mark.vllm

LONG = "--max-model-len 4096 --hf-overrides.text_config.max_position_embeddings=4096"
"""More than the phantom has learnt, so that a judge's prompt fits in, and a reason without end."""
ENVIRONMENT = {
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # two servers would be bound to the same processor
}
RUN = ["--model", "phantom", "--tasks", "phantom", "--protocol", "rules"]
NUM_SAMPLES = 420


@pytest.fixture(scope="session", autouse=True)
def _small_machine() -> Iterator[None]:
    """Ask vLLM for little: the model is tiny, and so may the machine be."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


def start(*argv: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "medix_eval", *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    with process:
        out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def run(*argv: object) -> tuple[int, str, str]:
    return finish(start(*argv))


def records(out: Path, name: str) -> list[dict[str, Any]]:
    paths = list(out.rglob(name))
    lines = paths[0].read_text(encoding="utf-8").splitlines() if paths else []
    return [json.loads(line) for line in lines]


def completions(out: Path) -> dict[tuple[str, str], str]:
    return {
        (one["task"], one["sample_id"]): one["completion"]
        for one in records(out, "completions.jsonl")
    }


def answered(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in out.rglob("completions.jsonl"))


def question() -> Prompt:
    (drawn,) = questions(Kind.CLOSED, num_samples=1, seed=5)
    return Prompt(text=f"<image>{prompt_of(drawn)}", images=(png(drawn.pixels),))


@dataclass(frozen=True, slots=True)
class Served:
    """A server that stays up, and the folder that remembers it."""

    out: Path
    source: VLLMServer

    def ask(self, *prompts: Prompt, max_tokens: int = 48) -> list[Completion | BaseException]:
        async def asking() -> list[Completion | BaseException]:
            async with self.source.open(self.out / "logs") as model:
                asked = [model.complete(one, Sampling(max_tokens=max_tokens)) for one in prompts]
                return await asyncio.gather(*asked, return_exceptions=True)

        return asyncio.run(asking())


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    out = tmp_path_factory.mktemp("served")
    source = VLLMServer(
        name="phantom",
        location=str(model_folder()),
        role="model",
        max_tokens=64,
        args=parse_vllm_args(LONG, flag="--vllm-args"),
        keep_in=out / ".servers",
    )
    server = Served(out, source)
    server.ask(Prompt(text="Are you there?"))
    yield server
    started = descendants(os.getpid())
    for kept in list(kept_servers(out / ".servers")):
        os.kill(kept.pid, signal.SIGTERM)
        os.waitpid(kept.pid, 0)
    assert [name for name in left(started) if "vllm" in name.lower()] == []


@pytest.fixture(scope="module")
def through_vllm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of the manual, as it stands there."""
    out = tmp_path_factory.mktemp("vllm")
    code, _, err = run(*RUN, "--backend", "vllm", "--out", out)
    assert code == 0, err
    return out


def test_vllm_and_transformers_give_the_same_greedy_answers(
    through_vllm: Path, tmp_path: Path
) -> None:
    code, _, err = run(*RUN, "--backend", "hf", "--out", tmp_path)
    assert code == 0, err

    ours, theirs = completions(through_vllm), completions(tmp_path)
    differ = {key: (ours.get(key), said) for key, said in theirs.items() if ours.get(key) != said}
    for key, (vllm, hf) in differ.items():
        sys.stdout.write(f"{key}: vllm {vllm!r}, transformers {hf!r}\n")
    sys.stdout.write(f"{len(theirs) - len(differ)} of {len(theirs)} answers are the same\n")
    assert len(theirs) == len(ours) == NUM_SAMPLES
    assert len(differ) <= 0.01 * NUM_SAMPLES, differ


def test_the_phantom_sees_through_vllm(through_vllm: Path) -> None:
    scores = json.loads(next(through_vllm.rglob("scores.json")).read_text())
    manifest = json.loads(next(through_vllm.rglob("run.json")).read_text())

    assert scores["groups"]["phantom"]["score"] > 0.9
    assert manifest["generation"]["model"]["engine"]["name"] == "vllm"


def test_text_alone_one_image_and_several_are_answered(served: Served) -> None:
    one = question()
    text = Prompt(text=one.text.removeprefix("<image>"))
    two = Prompt(text=f"<image>{one.text}", images=(*one.images, *one.images))

    replies = served.ask(text, one, two)

    answers = [reply for reply in replies if isinstance(reply, Completion)]
    without, single, several = [answer.prompt_tokens or 0 for answer in answers]
    assert "<answer>" in (answers[1].text or "")
    assert several - single == single - without > 0


def test_what_the_server_refuses_is_rejected_and_the_rest_answered(served: Served) -> None:
    one = question()
    long, broken, good = served.ask(
        Prompt(text="a lesion " * 5000),
        Prompt(text=one.text, images=(one.images[0][:100],)),
        one,
    )

    assert isinstance(long, RequestRejected)
    assert "4096" in str(long)
    assert isinstance(broken, RequestRejected)
    assert isinstance(good, Completion)


def test_a_schema_is_followed_without_a_blank(served: Served) -> None:
    schema = {
        "type": "object",
        "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 1}},
        "required": ["score"],
        "additionalProperties": False,
    }
    asked = [Prompt(text=f"Is {number} even?", schema=schema) for number in range(8)]

    replies = served.ask(*asked, max_tokens=16)

    assert {one.text for one in replies if isinstance(one, Completion)} <= {
        '{"score":0}',
        '{"score":1}',
    }
    assert len([one for one in replies if isinstance(one, Completion)]) == len(asked)


@pytest.mark.parametrize(("reply", "calls"), [("score", 1), (None, 2)])
def test_a_judge_that_vllm_serves_gives_votes_that_can_be_read(
    served: Served, through_vllm: Path, reply: str | None, calls: int
) -> None:
    """Its opinions are worthless, their form is not. It is the server that is up already.

    Asked for a reason it never comes to an end; then it is asked for the score alone.
    """
    (replay,) = through_vllm.rglob("completions.jsonl")
    out = served.out / str(reply)
    (kept,) = kept_servers(served.out / ".servers")
    remember(out / ".servers", kept)
    forms = [f"judge.{kind}.reply={reply}" for kind in ("question", "report") if reply]
    code, _, err = run(
        *("--model", f"replay:{replay}", "--tasks", "phantom", "--limit", "8", "--out", out),
        *("--judge", "phantom", "--judge-backend", "vllm", "--judge-vllm-args", LONG),
        *("--keep-server", "--no-cache", *(word for form in forms for word in ("--set", form))),
    )

    votes = [vote for one in records(out, "verdicts.jsonl") for vote in one.get("votes", ())]
    assert code == 0, err
    assert len(votes) >= 2 * 4 * 8
    assert all(vote["points"] is not None and vote["calls"] == calls for vote in votes)
    assert "stays up on port" in err
    assert not list(out.rglob("vllm-judge.log"))


@contextmanager
def recording(port: int) -> Iterator[tuple[int, list[bytes]]]:
    """Pass requests on to a server on this machine and keep their bodies; yields the own port."""
    bodies: list[bytes] = []

    async def pass_on(request: web.Request) -> web.Response:
        body = await request.read()
        bodies.extend([body] if body else [])
        address = f"http://{HOST}:{port}{request.path_qs}"
        headers = {"Content-Type": request.content_type}
        async with (
            aiohttp.ClientSession() as session,
            session.request(request.method, address, data=body, headers=headers) as reply,
        ):
            said = await reply.read()
            return web.Response(body=said, status=reply.status, content_type=reply.content_type)

    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", pass_on)
    with serving(app) as own:
        yield own, bodies


def test_vllm_sees_real_pictures_as_they_are(served: Served, tmp_path: Path) -> None:
    """The run finds the server that is up already, behind a proxy that keeps what it is sent."""
    COLLECTION.write_mirror(tmp_path / "mirror")
    argv = ["--model", "phantom", "--tasks", "real_pictures", "--protocol", "rules"]
    argv += ["--include-path", str(TASKS), "--data-root", str(tmp_path / "mirror")]
    argv += ["--set", "generation.max_tokens=48"]
    (kept,) = kept_servers(served.out / ".servers")
    with recording(kept.port) as (port, bodies):
        out = tmp_path / "vllm"
        remember(out / ".servers", replace(kept, port=port))
        server = ["--backend", "vllm", "--vllm-args", LONG, "--keep-server", "--out", str(out)]
        code, _, err = run(*argv, *server)
    hf_code, _, hf_err = run(*argv, "--backend", "hf", "--out", tmp_path / "hf")
    assert (code, hf_code) == (0, 0), (err, hf_err)

    ours, theirs = completions(out), completions(tmp_path / "hf")
    differ = {key: (ours.get(key), said) for key, said in theirs.items() if ours.get(key) != said}
    sys.stdout.write(f"{len(theirs) - len(differ)} of {len(theirs)} answers are the same\n")
    requests = [json.loads(body) for body in bodies]
    in_vllm = {in_request(one)[0]: decoded_by_vllm(images_of(one)) for one in requests}
    assert len(in_vllm) == len(COLLECTION.questions)
    assert differing(dict(map(in_request, requests)), sent) == {}
    assert differing(in_vllm, shown) == {}
    assert len(differ) <= 1, differ


SIDEWAYS = Image.Exif()
SIDEWAYS[ExifTags.Base.Orientation] = 6
SHADES = Image.linear_gradient("L").crop((0, 0, 16, 256))
WIDE = SHADES.convert("I").point(lambda value: value * 257).convert("I;16")
UNUSUAL: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
    "sideways": (SHADES, "JPEG", {"exif": SIDEWAYS}),
    "damaged-exif": (SHADES, "PNG", {"exif": b"Exif\0\0no TIFF"}),
    "16-bit-png": (WIDE, "PNG", {}),
    "16-bit-tiff": (WIDE, "TIFF", {}),
    "transparent": (Image.merge("LA", (SHADES, SHADES)), "PNG", {}),
    "transparent-colour": (SHADES, "PNG", {"transparency": 7}),
    "palette": (SHADES.convert("P"), "GIF", {"transparency": 7}),
    "cmyk": (SHADES.convert("CMYK"), "JPEG", {}),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_vllm_decodes_an_unusual_picture_as_transformers_is_shown_it(name: str) -> None:
    image, kind, options = UNUSUAL[name]
    out = io.BytesIO()
    image.save(out, format=kind, **options)
    stored = out.getvalue()

    (seen,) = decoded_by_vllm([as_sent(stored)])

    assert differences([seen], [Pixels.of(as_rgb(stored))]) == []


def test_vllm_is_asked_and_answers_as_in_stock_lm_eval(
    real_model: Path, real_rows: Path, tmp_path: Path
) -> None:
    """16 real rows, one at a time in 32 bits: what else is in a batch may turn a close choice."""
    source = VLLMServer(
        name="smollm2",
        location=str(real_model),
        role="model",
        max_tokens=32,
        args=parse_vllm_args("--max-model-len 2048 --dtype float32", flag="--vllm-args"),
        keep_in=tmp_path / ".servers",
    )
    Served(tmp_path, source).ask(Prompt(text="Are you there?"))
    (kept,) = kept_servers(tmp_path / ".servers")
    try:
        with recording(kept.port) as (port, bodies):
            url = f"http://{HOST}:{port}/v1"
            argv = ["--model", f"openai:{kept.id}", "--base-url", url, "--concurrency", "1"]
            found = stock.ours(tmp_path / "ours", rows=real_rows, argv=argv, max_tokens=32)
            asked = by_prompt(bodies)
            bodies.clear()
            args = f"model={kept.id},base_url={url}/chat/completions,seed=0,num_concurrent=1"
            theirs = stock.stock(
                tmp_path / "stock",
                rows=real_rows,
                picked=stock.picked_rows(tmp_path / "ours"),
                argv=("--model", "local-chat-completions", "--model_args", args),
                cut=32,
            )
            by_stock = by_prompt(bodies)
    finally:
        os.kill(kept.pid, signal.SIGTERM)
        os.waitpid(kept.pid, 0)

    assert len(asked) == 2 * stock.NUM_ROWS
    assert asked.keys() == by_stock.keys()
    for prompt, body in asked.items():
        mine, other = stock.compared(body, by_stock[prompt])
        assert mine == other
    answers, expected = ([(one.task, one.completion) for one in run] for run in (found, theirs))
    assert sorted(answers) == sorted(expected)
    assert len(set(answers)) > stock.NUM_ROWS


def by_prompt(bodies: list[bytes]) -> dict[str, dict[str, Any]]:
    return {prompt_text(body): body for body in map(json.loads, bodies)}


def decoded_by_vllm(images: list[bytes]) -> list[Pixels]:
    """Decode as the server does, with its own code."""
    declare_missing_operators()
    reader = import_module("vllm.multimodal.media.image").ImageMediaIO()
    return [Pixels.of(reader.load_bytes(image).media) for image in images]


def test_a_folder_that_does_not_exist_is_said_before_anything_starts(tmp_path: Path) -> None:
    code, _, err = run(
        *("--model", tmp_path / "nowhere", "--backend", "vllm", "--tasks", "phantom"),
        *("--protocol", "rules", "--out", tmp_path),
    )

    assert code == 2
    assert "is not a model" in err


def test_a_model_that_vllm_cannot_load_says_why(tmp_path: Path) -> None:
    code, _, err = run(
        *(*RUN, "--backend", "vllm", "--out", tmp_path),
        *("--vllm-args", "--max-model-len 4096 --quantization awq"),
    )

    assert code == 4
    assert "died while starting" in err
    assert "Cannot find the config file for awq" in err


def test_a_run_whose_server_is_killed_stops_and_a_restart_finishes_it(tmp_path: Path) -> None:
    argv = [*RUN, "--backend", "vllm", "--concurrency", "2", "--out", tmp_path]
    process = start(*argv)
    wait_until(lambda: answered(tmp_path) >= 20, seconds=300)
    (found,) = [one for one in descendants(process.pid) if "VLLM::EngineCore" in one.name()]
    os.kill(found.pid, signal.SIGKILL)
    code, _, err = finish(process)
    saved = completions(tmp_path)

    again, _, more = run(*argv)

    rows = Counter(
        (one["task"], one["sample_id"])
        for one in records(tmp_path, "completions.jsonl")
        if one.get("failure") is None
    )
    assert code == 4, err
    assert "the vLLM server of phantom died" in err
    assert 20 <= len(saved) < NUM_SAMPLES
    assert again == 0, more
    assert len(rows) == NUM_SAMPLES
    assert set(rows.values()) == {1}


def test_two_runs_at_once_do_not_disturb_each_other(tmp_path: Path, through_vllm: Path) -> None:
    outs = [tmp_path / "one", tmp_path / "two"]
    processes = [start(*RUN, "--backend", "vllm", "--limit", "20", "--out", out) for out in outs]

    ended = [finish(process) for process in processes]

    expected = completions(through_vllm)
    assert [code for code, _, _ in ended] == [0, 0], ended
    for out in outs:
        found = completions(out)
        assert len(found) == 4 * 20
        assert sum(expected[key] != said for key, said in found.items()) <= 1


def test_a_killed_run_leaves_no_process(tmp_path: Path) -> None:
    process = start(*RUN, "--backend", "vllm", "--concurrency", "1", "--out", tmp_path)
    wait_until(lambda: answered(tmp_path) > 0, seconds=300)
    started = descendants(process.pid)
    names = " ".join(one.name() for one in started)

    process.send_signal(signal.SIGKILL)
    process.communicate()

    assert "VLLM::EngineCore" in names
    assert "VLLM::Worker" in names
    wait_until(lambda: left(started) == [], seconds=10)


def left(processes: list[Process]) -> list[str]:
    return [one.name() for one in processes if one.is_alive]


@dataclass(frozen=True, slots=True)
class Process:
    """A process as it was seen: a number alone may be given to another one later."""

    pid: int
    born: str

    @property
    def is_alive(self) -> bool:
        """Whether it is still there, and not a zombie that only waits to be buried."""
        fields = _stat(self.pid)
        return fields is not None and fields[19] == self.born and fields[0] != "Z"

    def name(self) -> str:
        """Return what it calls itself, such as `VLLM::EngineCore`."""
        line = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        return line.replace(b"\0", b" ").decode(errors="replace")


def descendants(root: int) -> list[Process]:
    """List the processes below one, as they are now."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(folder.name))
        if fields is not None:
            parents[Process(int(folder.name), fields[19])] = int(fields[1])
    found: list[Process] = []
    below = {root}
    while below:
        children = [process for process, parent in parents.items() if parent in below]
        found += children
        below = {child.pid for child in children}
    return found


def wait_until(happened: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _stat(pid: int) -> list[str] | None:
    """Return the fields of a process from its state on: 0 state, 1 parent, 19 start time."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
