"""From a name on the command line to a model: the one place that knows all kinds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medix_eval.errors import ConfigError
from medix_eval.models.chat import ModelSource


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFlags:
    """What the command line says of one model besides its name."""

    role: Literal["model", "judge"]
    base_url: str | None = None
    key_env: str = "OPENAI_API_KEY"
    concurrency: int | None = None
    connect_timeout_s: float = 10.0
    request_timeout_s: float = 600.0

    @property
    def prefix(self) -> str:
        """How this role's flags begin."""
        return "--judge-" if self.role == "judge" else "--"


def resolve_model(name: str, flags: ModelFlags) -> ModelSource:
    """Return the model of that name, not yet open. Raises `ConfigError`."""
    kind, colon, rest = name.partition(":")
    if colon and kind == "openai":
        return _server(rest, flags)
    if flags.base_url:
        raise ConfigError(
            f"{flags.prefix}base-url goes with openai:NAME, not with {name!r}",
            hint=f"did you mean openai:{name}?",
        )
    if colon and kind == "replay":
        from medix_eval.models.replay import ReplayFile  # noqa: PLC0415

        return ReplayFile(path=Path(rest))
    if name == "rules":
        raise ConfigError("rules are a protocol", hint="--protocol rules needs no judge")
    from medix_eval.models.transformers_model import TransformersModel  # noqa: PLC0415

    batch = {"concurrency": flags.concurrency} if flags.concurrency else {}
    if name == "phantom":
        from medix_eval.phantom import model_folder  # noqa: PLC0415

        return TransformersModel(name="phantom", location=str(model_folder()), **batch)
    if colon or not name or (name.count("/") != 1 and not Path(name).is_dir()):
        raise ConfigError(
            f"{name!r} is no model",
            hint="models are ORG/NAME, a folder, openai:NAME, replay:FILE.jsonl or phantom",
        )
    return TransformersModel(name=name, location=name, **batch)


def _server(model: str, flags: ModelFlags) -> ModelSource:
    from medix_eval.models.openai_server import OpenAIServer  # noqa: PLC0415

    if not flags.base_url:
        raise ConfigError(
            f"openai:{model} needs {flags.prefix}base-url",
            hint=f"for example {flags.prefix}base-url http://localhost:8000/v1",
        )
    if not flags.base_url.startswith(("http://", "https://")):
        raise ConfigError(f"{flags.prefix}base-url {flags.base_url!r} is not an http(s) address")
    return OpenAIServer(
        model=model,
        base_url=flags.base_url,
        key_env=flags.key_env,
        concurrency=flags.concurrency or 64,
        connect_timeout_s=flags.connect_timeout_s,
        request_timeout_s=flags.request_timeout_s,
        role=flags.role,
    )
