"""The judge flags of several commands: each given once for all judges, or once for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from medix_eval.cli.arguments import check_positive, check_seconds
from medix_eval.errors import ConfigError

if TYPE_CHECKING:
    from medix_eval.cli.flags import Engine
    from medix_eval.evaluation.panel import JudgeChoice

_Value = TypeVar("_Value")


def judge_choices(
    names: Sequence[str] | None,
    *,
    backend: Engine | None,
    base_url: Sequence[str] | None,
    api_key_env: Sequence[str] | None,
    concurrency: Sequence[int] | None,
    gpus: Sequence[str] | None,
    vllm_args: Sequence[str] | None,
    request_timeout: float,
    server_timeout: float,
    keep_server: bool = False,
) -> tuple[JudgeChoice, ...]:
    """Return the judges that were named, or one without a name: the protocol's own."""
    from medix_eval.evaluation.panel import JudgeChoice  # noqa: PLC0415
    from medix_eval.models.resolve import ModelFlags  # noqa: PLC0415

    judges: list[str | None] = [*names] if names else [None]
    for number in concurrency or ():
        check_positive("--judge-concurrency", number)
    if len(judges) == 1:  # all addresses are of the one judge, and share its load
        urls = [tuple(base_url or ())]
    else:
        shared = _shared_out("--judge-base-url", base_url, judges, takes=_takes_address)
        urls = [() if url is None else (url,) for url in shared]
    engines = [backend] if backend else None
    given: dict[str, list[Any]] = {
        "base_urls": urls,
        "key_env": _shared_out("--judge-api-key-env", api_key_env, judges, takes=_takes_key),
        "backend": _shared_out("--judge-backend", engines, judges, takes=_runs_here),
        "gpus": _shared_out("--judge-gpus", gpus, judges, takes=_runs_here),
        "vllm_args": _shared_out("--judge-vllm-args", vllm_args, judges, takes=_runs_here),
        "concurrency": _shared_out(
            "--judge-concurrency", concurrency, judges, takes=lambda _: True
        ),
    }
    return tuple(
        JudgeChoice(
            name=name,
            flags=ModelFlags(
                role="judge",
                request_timeout_s=check_seconds("--judge-request-timeout", request_timeout),
                server_timeout_s=check_seconds("--judge-server-timeout", server_timeout),
                keep_server=keep_server,
                **{
                    key: values[number]
                    for key, values in given.items()
                    if values[number] is not None
                },
            ),
        )
        for number, name in enumerate(judges)
    )


def _shared_out(
    flag: str,
    values: Sequence[_Value] | None,
    judges: Sequence[str | None],
    *,
    takes: Callable[[str | None], bool] = lambda _: True,
) -> list[_Value | None]:
    """Give each judge its value: the only one, or the one in its place among those that take it."""
    if not values:
        return [None] * len(judges)
    # Where nobody takes the flag everybody gets it, and says why that cannot be.
    takers = [number for number, name in enumerate(judges) if takes(name)] or [*range(len(judges))]
    if len(values) not in {1, len(takers)}:
        raise ConfigError(
            f"{flag} is given {len(values)} times for {len(takers)} judges",
            hint="once for all of them, or once for each, in the order of --judge",
        )
    found: list[_Value | None] = [None] * len(judges)
    for place, number in enumerate(takers):
        found[number] = values[0] if len(values) == 1 else values[place]
    return found


def _takes_address(name: str | None) -> bool:
    return name is None or name.startswith("openai:")


def _takes_key(name: str | None) -> bool:
    return _takes_address(name) or _is_at_provider(name)


def _runs_here(name: str | None) -> bool:
    return name is None or not (name.startswith(("openai:", "replay:")) or _is_at_provider(name))


def _is_at_provider(name: str | None) -> bool:
    from medix_eval.models.resolve import load_providers  # noqa: PLC0415

    provider, colon, _ = (name or "").partition(":")
    return bool(colon) and provider in load_providers()
