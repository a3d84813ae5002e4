"""The command line: flags in, tables out; nothing heavy is imported before it is needed."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medix_eval import __version__, flags
from medix_eval.bundled import bundled
from medix_eval.errors import ConfigError, MedixError

if TYPE_CHECKING:
    from medix_eval.scores import Scores
    from medix_eval.tasks import Catalogue

# typer carries a click of its own and shows only its subclasses.
_UsageError: Any = next(
    base for base in typer.BadParameter.mro() if base.__name__ == "ClickException"
)
_INTERRUPTED = 130
_FAILURES = 1
_DONE = 0

app = typer.Typer(
    name="medix-eval",
    help="Evaluate medical language models, with and without images, so that the number is true.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def evaluate(
    context: typer.Context,
    *,
    model: flags.Model = "",
    tasks: flags.Tasks = None,
    protocol: flags.Protocol = "medix",
    overrides: flags.Overrides = None,
    limit: flags.Limit = None,
    seed: flags.Seed = 0,
    data_root: flags.DataRoot = None,
    include_path: flags.Include = None,
    local_host: flags.LocalHost = None,
    allow_egress: flags.Egress = None,
    dry_run: flags.DryRun = False,
    backend: flags.Backend = None,
    base_url: flags.BaseUrl = None,
    api_key_env: flags.KeyEnv = "OPENAI_API_KEY",
    concurrency: flags.Concurrency = None,
    request_timeout: flags.RequestTimeout = 600.0,
    allow_text_only: flags.TextOnly = False,
    judge: flags.Judge = None,
    judge_backend: flags.JudgeBackend = None,
    judge_base_url: flags.JudgeBaseUrl = None,
    judge_api_key_env: flags.JudgeKeyEnv = "OPENAI_API_KEY",
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
    from medix_eval.evaluation import Settings  # noqa: PLC0415
    from medix_eval.models.resolve import ModelFlags  # noqa: PLC0415
    from medix_eval.protocol import load_protocol  # noqa: PLC0415

    if not model:
        raise ConfigError("--model is missing", hint="for example --model phantom")
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit {limit} asks for no sample", hint="leave it out to run all")
    catalogue = _catalogue(include_path)
    settings = Settings(
        model=model,
        model_flags=ModelFlags(
            role="model",
            backend=backend,
            base_urls=tuple(base_url or ()),
            key_env=api_key_env,
            concurrency=_positive("--concurrency", concurrency),
            request_timeout_s=_seconds("--request-timeout", request_timeout),
            gpus=gpus,
            vllm_args=vllm_args,
            server_timeout_s=_seconds("--server-timeout", server_timeout),
            keep_server=keep_server,
        ),
        tasks=catalogue.select(tasks or []),
        protocol=load_protocol(protocol, overrides=overrides or []),
        judge=judge,
        judge_flags=ModelFlags(
            role="judge",
            backend=judge_backend,
            base_urls=tuple(judge_base_url or ()),
            key_env=judge_api_key_env,
            concurrency=_positive("--judge-concurrency", judge_concurrency),
            request_timeout_s=_seconds("--judge-request-timeout", judge_request_timeout),
            gpus=judge_gpus,
            vllm_args=judge_vllm_args,
            server_timeout_s=_seconds("--judge-server-timeout", judge_server_timeout),
            keep_server=keep_server,
        ),
        limit=limit,
        seed=seed,
        out=out,
        data_root=_folder("--data-root", data_root),
        use_cache=not no_cache,
        allow_partial=allow_partial,
        allow_text_only=allow_text_only,
        local_hosts=tuple(local_host or ()),
        egress_reason=allow_egress,
    )
    if dry_run:
        from medix_eval.dry_run import estimate  # noqa: PLC0415

        typer.echo(estimate(settings, catalogue, as_json=as_json))
        return
    from medix_eval.evaluation import evaluate as run_evaluation  # noqa: PLC0415

    scores = run_evaluation(settings, catalogue)
    _show(scores, as_json=as_json)
    raise typer.Exit(_FAILURES if scores.num_failures else _DONE)


@app.command("tasks")
def list_tasks(
    *,
    as_json: flags.Json = False,
    path: Annotated[
        bool, typer.Option("--path", help="Print the folder, for `lm_eval --include_path`.")
    ] = False,
    include_path: flags.Include = None,
) -> None:
    """List the tasks and the groups."""
    if path:
        typer.echo(str(bundled("tasks")))
        return
    catalogue = _catalogue(include_path)
    if as_json:
        typer.echo(json.dumps(_listing(catalogue), indent=2))
        return
    width = max(map(len, catalogue.tasks))
    for name, task in catalogue.tasks.items():
        size = f"{task.settings.num_samples or '?':>5}"
        what = f"{task.settings.kind.value:<15} {task.settings.modality:<5}"
        typer.echo(f"{name:<{width}}  {size}  {what} {task.settings.data_class}")
    typer.echo("")
    for name, members in catalogue.groups.items():
        typer.echo(f"{name:<{width}}  {len(members):>5}  {' '.join(members)}")


@app.command("show")
def show(
    task: Annotated[str, typer.Argument(metavar="TASK")],
    *,
    num: Annotated[int, typer.Option("--num", "-n", help="How many prompts.")] = 1,
    data_root: flags.DataRoot = None,
    include_path: flags.Include = None,
) -> None:
    """Print the first prompts of a task, as they will be sent."""
    catalogue = _catalogue(include_path)
    from medix_eval.dry_run import shown_prompts  # noqa: PLC0415

    for name in catalogue.select([task]):
        root = _folder("--data-root", data_root)
        typer.echo(shown_prompts(catalogue.tasks[name], data_root=root, num=num))


@app.command("score")
def score(
    run: Annotated[Path, typer.Argument(metavar="RUN")],
    *,
    as_json: flags.Json = False,
    allow_partial: flags.Partial = False,
    include_path: flags.Include = None,
) -> None:
    """Score a run folder again from its verdicts; nothing is sent anywhere."""
    from medix_eval.evaluation import write_scores  # noqa: PLC0415
    from medix_eval.store import find_run  # noqa: PLC0415

    folder, judged = find_run(run)
    if judged is None:
        raise ConfigError(f"{run} has no verdicts yet", hint="run the evaluation to its end first")
    scores = write_scores(folder, judged, _catalogue(include_path), allow_partial=allow_partial)
    _show(scores, as_json=as_json)
    raise typer.Exit(_FAILURES if scores.num_failures else _DONE)


def main(argv: list[str] | None = None) -> None:
    """Run the command; a deliberate error becomes one line, a hint and an exit code."""
    logging.basicConfig(format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        code = app(argv, standalone_mode=False)
    except MedixError as error:
        typer.echo(f"error: {error}", err=True)
        if error.hint:
            typer.echo(f"hint: {error.hint}", err=True)
        sys.exit(error.exit_code)
    except _UsageError as error:
        typer.echo(f"error: {error.format_message()}", err=True)
        typer.echo("hint: `medix-eval --help` lists the flags", err=True)
        sys.exit(ConfigError.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_DONE)
    except Exception:
        logging.getLogger(__name__).exception("this is a fault of medix-eval; please report it")
        sys.exit(MedixError.exit_code)
    if code == _INTERRUPTED:  # typer, too, turns Ctrl-C into this code
        typer.echo("interrupted: finished work is kept; start the same command again", err=True)
    sys.exit(code if isinstance(code, int) else _DONE)


def _catalogue(include_path: list[Path] | None) -> Catalogue:
    from medix_eval.tasks import load_tasks  # noqa: PLC0415

    return load_tasks([bundled("tasks"), *(include_path or [])])


def _listing(catalogue: Catalogue) -> dict[str, Any]:
    return {
        "tasks": [
            {
                "name": name,
                "version": task.version,
                "kind": task.settings.kind.value,
                "modality": task.settings.modality,
                "data_class": task.settings.data_class,
                "num_samples": task.settings.num_samples,
                "groups": list(catalogue.groups_of(name)),
            }
            for name, task in catalogue.tasks.items()
        ],
        "groups": {name: list(members) for name, members in catalogue.groups.items()},
    }


def _show(scores: Scores, *, as_json: bool) -> None:
    """Print the scores to stdout, and where the report is to stderr."""
    if as_json:
        typer.echo(scores.model_dump_json(indent=2))
    else:
        from rich.console import Console  # noqa: PLC0415

        from medix_eval.tables import for_terminal  # noqa: PLC0415

        # In a file a line may be long; only a terminal has an edge.
        width = None if sys.stdout.isatty() else 160
        Console(width=width, highlight=False).print(for_terminal(scores))
    typer.echo(f"report: {Path(scores.run) / 'report.md'}", err=True)


def _folder(flag: str, path: Path | None) -> Path | None:
    if path is not None and not path.is_dir():
        raise ConfigError(
            f"{flag} {path} is not a folder", hint="it holds a copy of each dataset as ORG/NAME"
        )
    return path


def _positive(flag: str, number: int | None) -> int | None:
    if number is not None and number < 1:
        raise ConfigError(f"{flag} {number} leaves nothing in flight", hint="1 or more")
    return number


def _seconds(flag: str, number: float) -> float:
    if not number > 0:
        raise ConfigError(f"{flag} {number} is no time at all", hint="seconds, such as 600")
    return number
