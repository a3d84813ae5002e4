"""`medix-eval --model M --tasks T`: run an evaluation and print its table."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from medix_eval.cli import flags
from medix_eval.cli.arguments import (
    check_folder,
    check_positive,
    check_seconds,
    open_catalogue,
    print_renderable,
    print_scores,
)
from medix_eval.cli.judges import judge_choices
from medix_eval.errors import ConfigError
from medix_eval.storage.version import __version__

if TYPE_CHECKING:
    from medix_eval.data.tasks import Catalogue
    from medix_eval.evaluation.evaluation import Settings

_FAILURES = 1
_DONE = 0


def evaluate(
    context: typer.Context,
    *,
    model: flags.Model = "",
    tasks: flags.Tasks = None,
    protocol: flags.Protocol = "medix",
    overrides: flags.Overrides = None,
    limit: flags.Limit = None,
    seed: flags.Seed = 0,
    control: flags.Control = None,
    repeat: flags.Repeat = None,
    data_root: flags.DataRoot = None,
    include_path: flags.Include = None,
    local_host: flags.LocalHost = None,
    allow_egress: flags.Egress = None,
    accept_data_change: flags.DataChange = False,
    allow_fallback: flags.Fallback = False,
    dry_run: flags.DryRun = False,
    backend: flags.Backend = None,
    base_url: flags.BaseUrl = None,
    api_key_env: flags.KeyEnv = None,
    concurrency: flags.Concurrency = None,
    request_timeout: flags.RequestTimeout = 600.0,
    allow_text_only: flags.TextOnly = False,
    judge: flags.Judge = None,
    judge_backend: flags.JudgeBackend = None,
    judge_base_url: flags.JudgeBaseUrl = None,
    judge_api_key_env: flags.JudgeKeyEnv = None,
    judge_concurrency: flags.JudgeConcurrency = None,
    judge_request_timeout: flags.JudgeRequestTimeout = 600.0,
    no_cache: flags.NoCache = False,
    gpus: flags.Gpus = None,
    judge_gpus: flags.JudgeGpus = None,
    vllm_args: flags.VllmArgs = None,
    judge_vllm_args: flags.JudgeVllmArgs = None,
    server_timeout: flags.ServerTimeout = 900.0,
    judge_server_timeout: flags.JudgeServerTimeout = 900.0,
    keep_server: flags.KeepServer = False,
    out: flags.Out = Path("results"),
    as_json: flags.JsonScores = False,
    allow_partial: flags.Partial = False,
    verbose: flags.Verbose = False,
    version: flags.Version = False,
) -> None:
    """Evaluate medical language models, with and without images, so that the number is true."""
    logging.getLogger("medix_eval").setLevel(logging.DEBUG if verbose else logging.INFO)
    if version:
        typer.echo(f"medix-eval {__version__}")
        return
    if context.invoked_subcommand is not None:
        return
    from medix_eval.evaluation.controls import Control  # noqa: PLC0415
    from medix_eval.evaluation.evaluation import Settings  # noqa: PLC0415
    from medix_eval.judging.protocol import load_protocol  # noqa: PLC0415
    from medix_eval.models.resolve import ModelFlags  # noqa: PLC0415

    if not model:
        raise ConfigError("--model is missing", hint="for example --model phantom")
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit {limit} asks for no sample", hint="leave it out to run all")
    catalogue = open_catalogue(include_path)
    fixed = load_protocol(protocol, overrides=overrides or [])
    settings = Settings(
        model=model,
        model_flags=ModelFlags(
            role="model",
            backend=backend,
            base_urls=tuple(base_url or ()),
            key_env=api_key_env,
            concurrency=check_positive("--concurrency", concurrency),
            request_timeout_s=check_seconds("--request-timeout", request_timeout),
            gpus=gpus,
            vllm_args=vllm_args,
            server_timeout_s=check_seconds("--server-timeout", server_timeout),
            keep_server=keep_server,
        ),
        tasks=catalogue.select(tasks or [], twins=fixed.twins),
        protocol=fixed,
        judges=judge_choices(
            judge,
            backend=judge_backend,
            base_url=judge_base_url,
            api_key_env=judge_api_key_env,
            concurrency=judge_concurrency,
            request_timeout=judge_request_timeout,
            gpus=judge_gpus,
            vllm_args=judge_vllm_args,
            server_timeout=judge_server_timeout,
            keep_server=keep_server,
        ),
        limit=limit,
        seed=seed,
        out=out,
        data_root=check_folder("--data-root", data_root),
        use_cache=not no_cache,
        allow_partial=allow_partial,
        allow_text_only=allow_text_only,
        control=Control.named(control) if control else None,
        local_hosts=tuple(local_host or ()),
        egress_reason=allow_egress,
        accept_data_change=accept_data_change,
        allow_fallback=allow_fallback,
    )
    if dry_run:
        from medix_eval.evaluation.dry_run import estimate  # noqa: PLC0415

        typer.echo(estimate(settings, catalogue, repetitions=repeat or 1, as_json=as_json))
        return
    if repeat is not None:
        raise typer.Exit(_repeated(settings, catalogue, times=repeat, as_json=as_json))
    from medix_eval.evaluation.evaluation import evaluate as run_evaluation  # noqa: PLC0415
    from medix_eval.evaluation.evaluation import evaluate_beside_plain  # noqa: PLC0415

    scores = (evaluate_beside_plain if control else run_evaluation)(settings, catalogue)
    print_scores(scores, as_json=as_json)
    raise typer.Exit(_FAILURES if scores.num_failures else _DONE)


def _repeated(settings: Settings, catalogue: Catalogue, *, times: int, as_json: bool) -> int:
    """Run `--repeat`, print what came of it and return the exit code."""
    from medix_eval.evaluation.repeats import evaluate_repeatedly  # noqa: PLC0415
    from medix_eval.evaluation.repeats_table import for_terminal  # noqa: PLC0415

    found = evaluate_repeatedly(settings, catalogue, times=times)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        print_renderable(for_terminal(found))
    typer.echo(f"repetitions: {Path(found.runs[0]) / 'repeats.json'}", err=True)
    return _FAILURES if found.num_failures else _DONE
