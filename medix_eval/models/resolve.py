"""From a name on the command line to a model: the one place that knows all kinds.

An installed distribution adds a kind with an entry point of the group `medix_eval.models`. Its name
is what stands before the colon, its value a function that is called as `resolve_model` is:

    [project.entry-points."medix_eval.models"]
    mymodel = "my_package:my_model"     # --model mymodel:ANYTHING, --judge mymodel:ANYTHING
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from medix_eval.errors import ConfigError, MedixError, how_to_install, whole_story
from medix_eval.models.chat import ModelSource
from medix_eval.models.checkpoint import split_gpus, visible_gpus
from medix_eval.models.openai_server import OpenAIServer
from medix_eval.models.requests import RetryPolicy
from medix_eval.models.shared_load import SharedLoad
from medix_eval.records import Frozen
from medix_eval.storage.bundled import read_mapping
from medix_eval.storage.digests import shown_url

_LONGEST_PART, _LONGEST_PATH = 255, 4095
"""Bytes that a part of a path may have, and all of it."""
_FORMS = (
    "models are ORG/NAME, a folder, openai:NAME, replay:FILE.jsonl, phantom, or NAME at a provider"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFlags:
    """What the command line says about one model besides its name."""

    role: Literal["model", "judge"]
    backend: Literal["vllm", "hf"] | None = None
    base_urls: tuple[str, ...] = ()
    key_env: str | None = None
    """None is the provider's own variable, or `OPENAI_API_KEY`."""
    aliases: tuple[str, ...] = ()
    """Other ids that an endpoint's replies may carry."""
    concurrency: int | None = None
    request_timeout_s: float = 600.0
    patience_s: float = 300.0
    """So long a server that cannot be reached is waited for."""
    gpus: str | None = None
    vllm_args: str | None = None
    server_timeout_s: float = 900.0
    keep_server: bool = False

    @property
    def prefix(self) -> str:
        """How this role's flags begin."""
        return "--judge-" if self.role == "judge" else "--"

    def shown(self) -> dict[str, Any]:
        """Return the flags as a run keeps them: without a key that an address carries."""
        return asdict(self) | {"base_urls": [*map(shown_url, self.base_urls)]}

    def policy(self, **how: Any) -> RetryPolicy:
        """Return how long requests to it are tried again."""
        silence_s = max(self.request_timeout_s, self.patience_s)
        return RetryPolicy(**{"patience_s": self.patience_s, "silence_s": silence_s, **how})


def resolve_model(
    name: str, flags: ModelFlags, *, max_tokens: int, out: Path = Path()
) -> ModelSource:
    """Return the model of that name, not yet open. Raises `ConfigError`.

    `max_tokens` is how long its completions may be, `out` where runs are kept.
    """
    size, *parts = (len(one.encode(errors="replace")) for one in (name, *name.split("/")))
    if not name.isprintable() or size > _LONGEST_PATH or max(parts) > _LONGEST_PART:
        raise ConfigError(f"{name[:60]!r} is not a model: too long, or not printable", hint=_FORMS)
    kind = kind_of(name)
    prefix, _, rest = name.partition(":")
    if kind in {"openai", "provider", "replay"}:
        _refuse(name, flags, "backend", "gpus", "vllm_args")
    if kind == "openai":
        return _endpoint(rest, flags)
    if kind == "provider":
        return _provided(name, load_providers()[prefix], flags)
    if kind == "plug-in":
        return _plugged_in(name, flags, max_tokens=max_tokens, out=out)
    if flags.base_urls:
        raise ConfigError(
            f"{flags.prefix}base-url works with openai:NAME, not with {name!r}",
            hint=f"did you mean openai:{name}?",
        )
    if kind == "replay":
        from medix_eval.models.replay import ReplayFile  # noqa: PLC0415

        return ReplayFile(path=Path(rest))
    return _checkpoint(name, flags, max_tokens=max_tokens, out=out)


def _checkpoint(name: str, flags: ModelFlags, *, max_tokens: int, out: Path) -> ModelSource:
    """Return a model whose weights are loaded here: ours, one of the hub, or a folder."""
    if name == "rules":
        raise ConfigError("rules is a protocol, not a model", hint="use --protocol rules")
    location = name
    if name == "phantom":
        from medix_eval.phantom.dataset import model_folder  # noqa: PLC0415

        location = str(model_folder())
    elif Path(name).is_dir() and name:  # known by its own name, wherever it lies
        location = str(Path(name).resolve())
        name = "".join(one if one.isprintable() else "?" for one in Path(location).name)
    elif ":" in name or name.count("/") != 1:
        raise ConfigError(
            f"{name!r} is not a model",
            hint=f"{_FORMS}: {', '.join(f'{one}:NAME' for one in load_providers())}"
            + "".join(f", or {one}:NAME of a plug-in" for one in sorted(_plug_ins().names)),
        )
    if _engine(name, flags) == "vllm":
        return _vllm(name, location, flags, max_tokens=max_tokens, out=out)
    from medix_eval.models.transformers_model import TransformersModel  # noqa: PLC0415

    _refuse(name, flags, "gpus", "vllm_args")
    return TransformersModel(name=name, location=location, **_in_flight(flags))


def _plugged_in(name: str, flags: ModelFlags, *, max_tokens: int, out: Path) -> ModelSource:
    """Return a model of a plug-in; whatever its code raises ends in one line that names it."""
    prefix = name.partition(":")[0]
    plug_in, *others = _plug_ins().select(name=prefix)
    by = [one.dist.name if one.dist else one.value for one in (plug_in, *others)]
    if others:
        raise ConfigError(
            f"{prefix}: is claimed by several plug-ins: {', '.join(by)}",
            hint="uninstall all but one",
        )
    try:
        source: ModelSource = plug_in.load()(name, flags, max_tokens=max_tokens, out=out)
    except MedixError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{name}: the plug-in {by[0]} failed: {whole_story(error)}",
            hint=f"it registers {plug_in.value} for {prefix}: names; update or uninstall it",
        ) from error
    return source


def kind_of(name: str) -> Literal["openai", "replay", "provider", "plug-in", "local"]:
    """Tell what a model's name asks for; no plug-in takes a prefix of ours."""
    prefix, colon, _ = name.partition(":")
    if colon and prefix == "openai":
        return "openai"
    if colon and prefix == "replay":
        return "replay"
    if colon and prefix in load_providers():
        return "provider"
    return "plug-in" if colon and prefix in _plug_ins().names else "local"


def _plug_ins() -> EntryPoints:
    return entry_points(group="medix_eval.models")


def give_gpus(models: Sequence[ModelSource]) -> tuple[ModelSource, ...]:
    """Give each model that vLLM serves its own GPUs, if there are enough for all at once."""
    from medix_eval.models.vllm_server import VLLMServer  # noqa: PLC0415

    served = [model for model in models if isinstance(model, VLLMServer)]
    if len(served) < 2:  # noqa: PLR2004 (alone, it may have them all)
        return tuple(models)
    named = {gpu for model in served for gpu in model.gpus}
    free = [gpu for gpu in visible_gpus() if gpu not in named]
    given: list[ModelSource] = []
    for model in models:
        if not isinstance(model, VLLMServer):
            given.append(model)
            continue
        own = model.gpus or tuple(free[: model.args.num_gpus])
        if len(own) < model.args.num_gpus:
            return tuple(models)
        free = [gpu for gpu in free if gpu not in own]
        given.append(replace(model, gpus=own))
    return tuple(given)


def _engine(name: str, flags: ModelFlags) -> Literal["vllm", "hf"]:
    """Return what runs a checkpoint: what was asked for, else vLLM if it is there."""
    from medix_eval.models.vllm_server import vllm_version  # noqa: PLC0415

    if flags.backend == "vllm" and vllm_version() is None:
        hint = how_to_install("vllm")
        raise ConfigError(f"{flags.prefix}backend vllm: vLLM is not installed", hint=hint)
    if flags.backend is not None:
        return flags.backend
    # vLLM takes a minute to start, the phantom less than that to answer everything.
    return "vllm" if name != "phantom" and vllm_version() is not None else "hf"


def _vllm(
    name: str, location: str, flags: ModelFlags, *, max_tokens: int, out: Path
) -> ModelSource:
    from medix_eval.models.vllm_args import parse_vllm_args  # noqa: PLC0415
    from medix_eval.models.vllm_server import VLLMServer  # noqa: PLC0415

    args = parse_vllm_args(flags.vllm_args or "", flag=f"{flags.prefix}vllm-args")
    gpus = split_gpus(flags.gpus or "")
    if flags.gpus is not None and len(gpus) < args.num_gpus:
        raise ConfigError(
            f"{flags.prefix}gpus {flags.gpus} is too few: {flags.prefix}vllm-args "
            f"asks for {args.num_gpus}",
            hint=f"{flags.prefix}gpus takes numbers such as 0,1",
        )
    return VLLMServer(
        name=name,
        location=location,
        role=flags.role,
        max_tokens=max_tokens,
        args=args,
        gpus=gpus,
        start_timeout_s=flags.server_timeout_s,
        request_timeout_s=flags.request_timeout_s,
        keep_in=out / ".servers" if flags.keep_server else None,
        **_in_flight(flags),
    )


def _refuse(name: str, flags: ModelFlags, *fields: str) -> None:
    """Refuse flags that would have no effect, so that they are not silently ignored."""
    for field in fields:
        if getattr(flags, field) is not None:
            flag = flags.prefix + field.replace("_", "-")
            raise ConfigError(
                f"{flag} is for models that vLLM serves, but {name!r} is not one",
                hint=f"{flags.prefix}backend vllm serves ORG/NAME or a folder; for transformers, "
                "CUDA_VISIBLE_DEVICES chooses GPUs",
            )


def _endpoint(model: str, flags: ModelFlags) -> ModelSource:
    if not flags.base_urls:
        raise ConfigError(
            f"openai:{model} needs {flags.prefix}base-url",
            hint=f"for example {flags.prefix}base-url http://localhost:8000/v1",
        )
    servers, asking = [], _asking(flags, key_env="OPENAI_API_KEY")
    for url in dict.fromkeys(flags.base_urls):
        _check_address(url, flag=f"{flags.prefix}base-url")
        servers.append(OpenAIServer(model=model, base_url=url, **asking))
    return servers[0] if len(servers) == 1 else SharedLoad(servers=tuple(servers))


def _provided(name: str, provider: Provider, flags: ModelFlags) -> ModelSource:
    """Return a model at a provider. Its key is asked for here: without it nothing would come."""
    kind, _, model = name.partition(":")
    if flags.base_urls:
        raise ConfigError(
            f"{flags.prefix}base-url is for openai:NAME, but {kind} is at {provider.base_url}",
            hint=f"leave it out, or name openai:{model} to ask that address",
        )
    if not model:
        raise ConfigError(f"{name!r} has no model name", hint=f"for example {kind}:ORG/NAME")
    served = ProvidedModel(
        provider=kind,
        model=model,
        base_url=provider.base_url,
        **_asking(flags, key_env=provider.key_env),
    )
    if not os.environ.get(served.key_env, "").strip():
        raise ConfigError(
            f"{name} needs a key, but the environment variable {served.key_env} is empty or unset",
            hint=f"export {served.key_env}=..., or name another with {flags.prefix}api-key-env",
        )
    return served


def _check_address(url: str, *, flag: str) -> None:
    """Refuse an invalid address, and one with a password: it would end up in `run.json`."""
    hint = "for example http://localhost:8000/v1"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"{flag} {url!r} is not an http(s) address", hint=hint) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"{flag} {url!r} is not an http(s) address", hint=hint)
    if parts.username or parts.password:
        raise ConfigError(
            f"{flag} contains a password", hint="keys come from the environment: --api-key-env VAR"
        )


def _asking(flags: ModelFlags, *, key_env: str) -> dict[str, Any]:
    """Return how an endpoint is asked; `key_env` holds the key where no flag names another."""
    return {
        "role": flags.role,
        "key_env": flags.key_env or key_env,
        "aliases": flags.aliases,
        "request_timeout_s": flags.request_timeout_s,
        **_in_flight(flags),
    }


def _in_flight(flags: ModelFlags) -> dict[str, Any]:
    """Return a fixed number of requests in flight, where one was asked for."""
    return {"concurrency": flags.concurrency, "adapts": False} if flags.concurrency else {}


def kept_local(
    sources: Sequence[ModelSource],
    *,
    tasks: Iterable[str],
    allowed: Collection[str],
    reason: str | None,
) -> tuple[ModelSource, ...]:
    """Return the models, those behind a server bound to the addresses that were checked.

    A name is looked up once: one that meant this machine at the check could mean another at the
    connection. `tasks` are the restricted ones; without any, or with a reason, models are as they
    were. Raises `ConfigError` for a host that is neither this machine nor `allowed`.
    """
    names = sorted(tasks)
    if not names or (reason or "").strip():
        return tuple(sources)
    found = {}
    for host in sorted({host for source in sources for host in source.hosts}):
        found[host] = addresses_of(host)
        if host not in allowed and not is_local(found[host]):
            raise ConfigError(
                f"{', '.join(names)}: restricted data may not be sent to {host}",
                hint=f"use a model on this machine, allow the host with --local-host {host}, "
                'or state why it is allowed with --allow-egress "reason"',
            )
    return tuple(
        one.bound(found) if isinstance(one, OpenAIServer | SharedLoad) else one for one in sources
    )


def addresses_of(host: str) -> tuple[str, ...]:
    """Return all addresses of a host; none if it is unknown."""
    try:
        return tuple({str(info[4][0]): None for info in socket.getaddrinfo(host, None)})
    except OSError:
        return ()


def is_local(addresses: Collection[str]) -> bool:
    """Whether all of these are loopback addresses, and there is one."""
    return bool(addresses) and all(ipaddress.ip_address(one).is_loopback for one in addresses)


_FILE = Path(__file__).with_name("providers.yaml")


class Provider(Frozen):
    """One entry of `providers.yaml`; its key is the part before the colon in a model's name."""

    base_url: str
    key_env: str
    """The environment variable that holds the user's key."""


def load_providers() -> dict[str, Provider]:
    """Read the providers by name."""
    listed = read_mapping(_FILE, what="provider list")
    return {name: Provider.model_validate(one) for name, one in listed.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvidedModel(OpenAIServer):
    """A model at a provider; only its name tells it from one behind `--base-url`."""

    provider: str

    @property
    def name(self) -> str:
        """The name as given on the command line."""
        return f"{self.provider}:{self.model}"

    @property
    def where(self) -> str:
        """The address and who gave it, for messages."""
        return f"{self.base_url}, the address of {self.provider}"
