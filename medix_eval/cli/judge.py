"""`medix-eval judge RUN...`: saved completions judged again, and what that changed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from medix_eval.cli import flags
from medix_eval.cli.arguments import open_catalogue, print_renderable
from medix_eval.cli.judges import judge_choices

_FAILURES, _DONE = 1, 0


def judge(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...")],
    *,
    protocol: flags.Protocol = "medix",
    overrides: flags.Overrides = None,
    judge: flags.Judge = None,
    judge_backend: flags.JudgeBackend = None,
    judge_base_url: flags.JudgeBaseUrl = None,
    judge_api_key_env: flags.JudgeKeyEnv = None,
    judge_concurrency: flags.JudgeConcurrency = None,
    judge_request_timeout: flags.JudgeRequestTimeout = 600.0,
    no_cache: flags.NoCache = False,
    judge_gpus: flags.JudgeGpus = None,
    judge_vllm_args: flags.JudgeVllmArgs = None,
    judge_server_timeout: flags.JudgeServerTimeout = 900.0,
    local_host: flags.LocalHost = None,
    allow_egress: flags.Egress = None,
    include_path: flags.Include = None,
    allow_partial: flags.Partial = False,
    as_json: flags.Json = False,
    verbose: flags.Verbose = False,
) -> None:
    """Judge the saved completions of runs again; the models are not asked anything."""
    logging.getLogger("medix_eval").setLevel(logging.DEBUG if verbose else logging.INFO)
    from medix_eval.evaluation.judge_changes import changes_of, for_terminal  # noqa: PLC0415
    from medix_eval.evaluation.rejudging import Rejudging, judge_again  # noqa: PLC0415
    from medix_eval.judging.protocol import load_protocol  # noqa: PLC0415

    asked = Rejudging(
        runs=tuple(runs),
        protocol=load_protocol(protocol, overrides=overrides or []),
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
        ),
        use_cache=not no_cache,
        allow_partial=allow_partial,
        local_hosts=tuple(local_host or ()),
        egress_reason=allow_egress,
    )
    rejudged = judge_again(asked, open_catalogue(include_path))
    changes = changes_of(rejudged)
    if as_json:
        typer.echo(changes.model_dump_json(indent=2))
    else:
        print_renderable(for_terminal(changes))
    for one in rejudged:
        typer.echo(f"report: {one.after / 'report.html'}", err=True)
    raise typer.Exit(_FAILURES if changes.num_failures else _DONE)
