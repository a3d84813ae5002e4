"""What commands share: their flags, each declared once, and how they print."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import RenderableType

    from medix_eval.data.tasks import Catalogue
    from medix_eval.results.scores import Scores

Command = Callable[..., None]
Found = TypeVar("Found", bound="BaseModel")

# A flag reads best as one line of what it is and one of what it says.
# fmt: off
_WHAT, _MODELS, _JUDGES, _OUTPUT = "What to run", "The model", "The judge", "Results"
_VLLM = "Models that vLLM serves"
Engine = Literal["vllm", "hf"]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Partial = Annotated[bool, typer.Option("--allow-partial", rich_help_panel=_OUTPUT,
    help="Average incomplete groups too; they stay marked.")]
Tasks = Annotated[list[str] | None, typer.Option("--tasks", metavar="T[,T]", rich_help_panel=_WHAT,
    help="Tasks and groups; commas or repeats.")]
Judging = Annotated[str | None, typer.Option("--judging", metavar="DIGEST",
    help="Which judging, by the first letters of its digest; else the one asked for last.")]
Include = Annotated[list[Path] | None, typer.Option("--include-path", rich_help_panel=_WHAT,
    help="A folder with your own task files.")]
DataRoot = Annotated[Path | None, typer.Option("--data-root", rich_help_panel=_WHAT,
    help="A local mirror of the datasets: DIR/ORG/NAME.")]
Protocol = Annotated[str, typer.Option("--protocol", metavar="P", rich_help_panel=_WHAT,
    help="Fixes everything that can affect a score: a name or a YAML file.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE",
    rich_help_panel=_WHAT, help="Change one key of the protocol; the result records it.")]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", rich_help_panel=_WHAT,
    help="At most N samples per task: a seeded, stratified subset.")]
Seed = Annotated[int, typer.Option("--seed", rich_help_panel=_WHAT, help="Seed of that subset.")]
Control = Annotated[str | None, typer.Option("--control", metavar="C", rich_help_panel=_WHAT,
    help="Ask the same with one thing perturbed, and compare: no-image, blank-image, wrong-image, "
         r"shuffle-options\[:K] for the K-th order, or always-normal for the answer to a report.")]
Repeat = Annotated[int | None, typer.Option("--repeat", metavar="K", rich_help_panel=_WHAT,
    help="K runs with different seeds: how much the score varies, pass@k and majority@k. Needs "
         "--set generation.temperature=T.")]
LocalHost = Annotated[list[str] | None, typer.Option("--local-host", metavar="HOST",
    rich_help_panel=_WHAT, help="A host that may see restricted (dua) data.")]
Egress = Annotated[str | None, typer.Option("--allow-egress", metavar="REASON",
    rich_help_panel=_WHAT, help="Send restricted data to other hosts; the reason is recorded.")]
DataChange = Annotated[bool, typer.Option("--accept-data-change", rich_help_panel=_WHAT,
    help="Use data that differs from what the task file pins or the run was started with (this "
         "starts another run); the change is recorded.")]
Fallback = Annotated[bool, typer.Option("--allow-fallback", rich_help_panel=_WHAT,
    help="If a dataset is unavailable, use the fallback that its task names; it counts as another "
         "benchmark.")]
DryRun = Annotated[bool, typer.Option("--dry-run", rich_help_panel=_WHAT,
    help="Print what would be sent.")]
Model = Annotated[str, typer.Option("--model", metavar="M", rich_help_panel=_MODELS,
    help=r"ORG/NAME\[@REV], a folder, openai:NAME, openrouter:NAME (or another provider's), "
         "replay:FILE.jsonl or phantom.")]
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", rich_help_panel=_MODELS,
    help="How the model is shown everywhere; runs of another name are runs of another model.")]
SameModel = Annotated[bool, typer.Option("--same-model", rich_help_panel=_MODELS,
    help="Go on with the run of this model at another address; you vouch that it is the same.")]
Backend = Annotated[Engine | None, typer.Option("--backend", rich_help_panel=_MODELS,
    help="What runs ORG/NAME or a folder: vLLM if it is installed, else transformers (hf). "
         "Phantom is so small that hf runs it unless vllm is asked for.")]
BaseUrl = Annotated[list[str] | None, typer.Option("--base-url", metavar="URL",
    rich_help_panel=_MODELS, help="Address of the server behind openai:NAME, such as "
                                  "http://host:8000/v1; several share the load.")]
KeyEnv = Annotated[str | None, typer.Option("--api-key-env", metavar="VAR", rich_help_panel=_MODELS,
    help="Environment variable that holds the key: OPENAI_API_KEY, or the provider's own, if none "
         "is named.")]
Alias = Annotated[list[str] | None, typer.Option("--allow-model-alias", metavar="ID",
    rich_help_panel=_MODELS, help="Another id that the server's replies may carry; you vouch that "
                                  "it is the same model. A dated form of the name needs no flag.")]
Concurrency = Annotated[int | None, typer.Option("--concurrency", metavar="N",
    rich_help_panel=_MODELS, help="Requests in flight to a server, instead of tuning the number; "
                                  "for a model in this process, the batch size.")]
RequestTimeout = Annotated[float, typer.Option("--request-timeout", metavar="S",
    rich_help_panel=_MODELS, help="Seconds until a request times out.")]
Patience = Annotated[float, typer.Option("--patience", metavar="S", rich_help_panel=_MODELS,
    help="Seconds to wait for a server that cannot be reached any more; then the run stops.")]
TextOnly = Annotated[bool, typer.Option("--allow-text-only", rich_help_panel=_MODELS,
    help="Ask a text-only model without the images; the result records it.")]
Judge = Annotated[list[str] | None, typer.Option("--judge", metavar="J", rich_help_panel=_JUDGES,
    help="The model that grades; the protocol names the default. Several are a jury, and a "
         "--judge- flag is then given once for all or once for each.")]
JudgeBackend = Annotated[Engine | None, typer.Option("--judge-backend", rich_help_panel=_JUDGES,
    help="What runs the judge, or every judge that runs here.")]
JudgeBaseUrl = Annotated[list[str] | None, typer.Option("--judge-base-url", metavar="URL",
    rich_help_panel=_JUDGES, help="Address of the judge's server; several share the load of one "
                                  "judge.")]
JudgeKeyEnv = Annotated[list[str] | None, typer.Option("--judge-api-key-env", metavar="VAR",
    rich_help_panel=_JUDGES, help="Environment variable that holds the judge's key.")]
JudgeAlias = Annotated[list[str] | None, typer.Option("--judge-allow-model-alias", metavar="ID",
    rich_help_panel=_JUDGES, help="Another id that a judge's replies may carry.")]
JudgeConcurrency = Annotated[list[int] | None, typer.Option("--judge-concurrency", metavar="N",
    rich_help_panel=_JUDGES, help="Judge calls in flight.")]
JudgeRequestTimeout = Annotated[float, typer.Option("--judge-request-timeout", metavar="S",
    rich_help_panel=_JUDGES, help="Seconds until a judge call times out.")]
JudgePatience = Annotated[float, typer.Option("--judge-patience", metavar="S",
    rich_help_panel=_JUDGES, help="The same for the judge.")]
NoCache = Annotated[bool, typer.Option("--no-cache", rich_help_panel=_JUDGES,
    help="Ask the judge again instead of using cached verdicts.")]
Gpus = Annotated[str | None, typer.Option("--gpus", metavar="0,1", rich_help_panel=_VLLM,
    help="GPUs of the model. If model and judge have separate GPUs, both run at once; by default "
         "they get separate GPUs if there are enough.")]
JudgeGpus = Annotated[list[str] | None, typer.Option("--judge-gpus", metavar="2,3",
    rich_help_panel=_VLLM, help="GPUs of the judge.")]
VllmArgs = Annotated[str | None, typer.Option("--vllm-args", metavar='"..."', rich_help_panel=_VLLM,
    help='Passed on to vLLM, such as "--tensor-parallel-size 2"; what can affect a score is in '
         "the digest.")]
JudgeVllmArgs = Annotated[list[str] | None, typer.Option("--judge-vllm-args", metavar='"..."',
    rich_help_panel=_VLLM, help="The same for the judge.")]
ServerTimeout = Annotated[float, typer.Option("--server-timeout", metavar="S",
    rich_help_panel=_VLLM, help="Seconds to wait for the server to become ready.")]
JudgeServerTimeout = Annotated[float, typer.Option("--judge-server-timeout", metavar="S",
    rich_help_panel=_VLLM, help="The same for the judge.")]
KeepServer = Annotated[bool, typer.Option("--keep-server", rich_help_panel=_VLLM,
    help="Leave servers running after the run, for the next one.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", rich_help_panel=_OUTPUT,
    help="Where runs go.")]
JsonScores = Annotated[bool, typer.Option("--json", rich_help_panel=_OUTPUT,
    help="Print scores.json, not the table.")]
Verbose = Annotated[bool, typer.Option("--verbose", rich_help_panel=_OUTPUT,
    help="Log every retry.")]
Version = Annotated[bool, typer.Option("--version", help="Print the version.")]

# fmt: on
_MODEL = {
    "backend": (Backend, None),
    "base_url": (BaseUrl, None),
    "api_key_env": (KeyEnv, None),
    "allow_model_alias": (Alias, None),
    "concurrency": (Concurrency, None),
    "request_timeout": (RequestTimeout, 600.0),
    "patience": (Patience, 300.0),
    "gpus": (Gpus, None),
    "vllm_args": (VllmArgs, None),
    "server_timeout": (ServerTimeout, 900.0),
    "keep_server": (KeepServer, False),
}
_JUDGE = {
    "judge_backend": (JudgeBackend, None),
    "judge_base_url": (JudgeBaseUrl, None),
    "judge_api_key_env": (JudgeKeyEnv, None),
    "judge_allow_model_alias": (JudgeAlias, None),
    "judge_concurrency": (JudgeConcurrency, None),
    "judge_request_timeout": (JudgeRequestTimeout, 600.0),
    "judge_patience": (JudgePatience, 300.0),
    "judge_gpus": (JudgeGpus, None),
    "judge_vllm_args": (JudgeVllmArgs, None),
    "judge_server_timeout": (JudgeServerTimeout, 900.0),
}
_SIDE_BY_SIDE = ("gpus", "vllm_args", "server_timeout", "keep_server")
"""Flags of vLLM, in the order of its panel: the judge's stands behind the model's."""


def _place(name: str) -> int:
    plain = name.removeprefix("judge_")
    return _SIDE_BY_SIDE.index(plain) if plain in _SIDE_BY_SIDE else -1


_FAMILIES: dict[str, dict[str, tuple[Any, Any]]] = {
    "judge": _JUDGE,
    "evaluation": {
        "model": (Model, ""),
        "name": (Name, None),
        "tasks": (Tasks, None),
        "protocol": (Protocol, "medix"),
        "overrides": (Overrides, None),
        "limit": (Limit, None),
        "seed": (Seed, 0),
        "control": (Control, None),
        "repeat": (Repeat, None),
        "data_root": (DataRoot, None),
        "include_path": (Include, None),
        "local_host": (LocalHost, None),
        "allow_egress": (Egress, None),
        "accept_data_change": (DataChange, False),
        "allow_fallback": (Fallback, False),
        "judge": (Judge, None),
        **{name: (_MODEL | _JUDGE)[name] for name in sorted(_MODEL | _JUDGE, key=_place)},
        "same_model": (SameModel, False),
        "allow_text_only": (TextOnly, False),
        "no_cache": (NoCache, False),
        "out": (Out, Path("results")),
    },
}


def family(name: Literal["judge", "evaluation"]) -> Callable[[Command], Command]:
    """Give a command a family of flags, which are declared once and taken whole.

    They stand in place of its parameter `options`, which gets their values by name: they are the
    keyword arguments of `medix_eval.evaluate`. typer reads flags from a signature, so one is
    written.
    """

    def decorated(command: Command) -> Command:
        flags = _FAMILIES[name]
        parameters: list[inspect.Parameter] = []
        for own in inspect.signature(command, eval_str=True).parameters.values():
            if own.name != "options":
                parameters.append(own)
                continue
            parameters += [
                inspect.Parameter(flag, own.kind, default=default, annotation=annotation)
                for flag, (annotation, default) in flags.items()
            ]

        @wraps(command)
        def call(*args: Any, **given: Any) -> None:
            command(*args, options={flag: given.pop(flag) for flag in flags}, **given)

        call.__annotations__ = {one.name: one.annotation for one in parameters}
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return call

    return decorated


def open_catalogue(include_path: list[Path] | None) -> Catalogue:
    """Read the bundled task files and the user's own."""
    from medix_eval.data.tasks import open_catalogue as opened  # noqa: PLC0415

    return opened(include_path or ())


def print_scores(scores: Scores, *, as_json: bool) -> None:
    """Print the scores to stdout, and where the report is to stderr."""
    from medix_eval.report.tables import scores_table  # noqa: PLC0415

    print_found(scores, scores_table, as_json=as_json)
    typer.echo(f"report: {Path(scores.run) / 'report.html'}", err=True)


def print_found(found: Found, table: Callable[[Found], RenderableType], *, as_json: bool) -> None:
    """Print to stdout what a command found: as JSON for machines, or as its table."""
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    from rich.console import Console  # noqa: PLC0415

    # In a file a line may be long; only a terminal has an edge.
    width = None if sys.stdout.isatty() else 160
    Console(width=width, highlight=False).print(table(found))
