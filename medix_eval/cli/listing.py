"""`medix-eval tasks` and `show`: list the tasks, and show prompts as they will be sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medix_eval.cli import flags
from medix_eval.cli.flags import open_catalogue
from medix_eval.errors import ConfigError
from medix_eval.storage.bundled import bundled

if TYPE_CHECKING:
    from medix_eval.data.tasks import Catalogue


def tasks(
    *,
    as_json: flags.Json = False,
    path: Annotated[bool, typer.Option("--path",
        help="Print the folder, for `lm_eval --include_path`.")] = False,
    include_path: flags.Include = None,
) -> None:  # fmt: skip
    """List the tasks and the groups."""
    if path:
        typer.echo(str(bundled("tasks")))
        return
    catalogue = open_catalogue(include_path)
    if as_json:
        typer.echo(json.dumps(_listing(catalogue), indent=2))
        return
    width = max(map(len, catalogue.tasks))
    for name, task in catalogue.tasks.items():
        size = f"{task.settings.num_samples or '?':>5}"
        what = f"{task.settings.kind.value:<15} {task.settings.modality:<5}"
        what += f" {task.settings.data_class:<6} {' '.join(task.settings.slice_names)}"
        typer.echo(f"{name:<{width}}  {size}  {what}".rstrip())
    typer.echo("")
    for name, members in catalogue.groups.items():
        typer.echo(f"{name:<{width}}  {len(members):>5}  {' '.join(members)}")
    typer.echo(
        "\nWith --include_path, stock lm-eval runs these medmcqa, pubmedqa and mmlu_* for its own."
    )


def show(
    task: Annotated[str | None, typer.Argument(metavar="TASK")] = None,
    *,
    protocol: Annotated[str | None, typer.Option("--protocol", metavar="P",
        help="Show a protocol and what its judge is sent.")] = None,
    overrides: flags.Overrides = None,
    num: Annotated[int, typer.Option("--num", "-n", help="How many prompts.")] = 1,
    data_root: flags.DataRoot = None,
    include_path: flags.Include = None,
) -> None:  # fmt: skip
    """Print the first prompts of a task, or a protocol with its judge's prompts filled."""
    if (task is None) == (protocol is None):
        raise ConfigError("show takes a TASK or a --protocol", hint="for example: show medqa")
    if protocol is not None:
        from medix_eval.judging.prompts import shown_protocol  # noqa: PLC0415
        from medix_eval.judging.protocol import load_protocol  # noqa: PLC0415

        typer.echo(shown_protocol(load_protocol(protocol, overrides=overrides or [])))
        return
    catalogue = open_catalogue(include_path)
    from medix_eval.data.tasks import mirror_at  # noqa: PLC0415
    from medix_eval.evaluation.dry_run import shown_prompts  # noqa: PLC0415

    for name in catalogue.select([task or ""]):
        root = mirror_at(data_root)
        typer.echo(shown_prompts(catalogue.tasks[name], data_root=root, num=num))


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
                "slices": task.settings.slice_names,
                "groups": list(catalogue.groups_of(name)),
            }
            for name, task in catalogue.tasks.items()
        ],
        "groups": {name: list(members) for name, members in catalogue.groups.items()},
    }
