"""`medix-eval data`: where the benchmarks' data is, how to get it, and whether it is right."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from medix_eval.cli import flags
from medix_eval.cli.flags import open_catalogue
from medix_eval.errors import ConfigError, DatasetError
from medix_eval.report.format import counted

app = typer.Typer(
    help="Where the benchmarks' data is, how to get it, and whether it is right.",
    no_args_is_help=True,
)
MirrorRoot = Annotated[Path, typer.Option("--data-root", help="The mirror to check: DIR/ORG/NAME.")]
DataClass = Literal["public", "gated", "dua"]
Target = Annotated[
    Path, typer.Option("--to", metavar="DIR", help="Where the mirror is, or will be.")
]


@app.command("list")
def list_data(
    *,
    tasks: flags.Tasks = None,
    data_root: flags.DataRoot = None,
    include_path: flags.Include = None,
    as_json: flags.Json = False,
) -> None:
    """List each task's source, licence, size, and whether its data is here."""
    from medix_eval.data.pull import place_of  # noqa: PLC0415
    from medix_eval.data.tasks import mirror_at  # noqa: PLC0415

    catalogue = open_catalogue(include_path)
    root = mirror_at(data_root)
    names = catalogue.select(tasks) if tasks else tuple(catalogue.tasks)
    rows = []
    for name in names:
        file = catalogue.tasks[name]
        source = f"{file.dataset_path or 'made here'}"
        rows.append(
            {
                "task": name,
                "source": f"{source}:{file.dataset_name}" if file.dataset_name else source,
                "licence": file.settings.licence,
                "data_class": file.settings.data_class,
                "num_samples": file.settings.num_samples,
                **asdict(place_of(file, data_root=root)),
            }
        )
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    header = ("task", "source", "licence", "data_class", "num_samples", "where")
    cells = [header, *(tuple(str(row[key] or "?") for key in header) for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(header))]
    for line in cells:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join(padded).rstrip())


@app.command("pull")
def pull_data(
    *,
    tasks: flags.Tasks = None,
    to: Target,
    include_path: flags.Include = None,
    as_json: flags.Json = False,
) -> None:
    """Copy the data of tasks into a mirror; an interrupted pull resumes."""
    logging.getLogger("medix_eval").setLevel(logging.INFO)
    catalogue = open_catalogue(include_path)
    files = [catalogue.tasks[name] for name in catalogue.select(tasks or [])]
    from medix_eval.data.pull import pull, size_text  # noqa: PLC0415 (datasets: a second)

    pulled = pull(files, to)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in pulled], indent=2, default=str))
        return
    for one in pulled:
        typer.echo(
            f"{one.repository} at {one.revision[:8]}: {counted(one.num_files, 'file')}, "
            f"{size_text(one.num_bytes)}, {one.num_fetched} of them new"
        )
    typer.echo(f"use it with --data-root {to}")


@app.command("check")
def check_data(
    *,
    data_root: MirrorRoot,
    tasks: flags.Tasks = None,
    include_path: flags.Include = None,
    as_json: flags.Json = False,
) -> None:
    """Check a mirror: files, columns, types, rows, images; every difference is listed."""
    from medix_eval.data.tasks import mirror_at  # noqa: PLC0415

    mirror_at(data_root)
    catalogue = open_catalogue(include_path)
    names = list(catalogue.select(tasks) if tasks else catalogue.tasks)
    from medix_eval.data.check import check_mirror  # noqa: PLC0415 (lm-eval: seconds)
    from medix_eval.data.pull import place_of  # noqa: PLC0415

    absent = []
    if not tasks:  # a mirror need not hold every benchmark
        places = {name: place_of(catalogue.tasks[name], data_root=data_root) for name in names}
        absent = [name for name, place in places.items() if place.where == "missing"]
        names = [name for name in names if places[name].where != "drawn"]
    files = [catalogue.tasks[name] for name in names if name not in absent]
    checked, datasets, faults = check_mirror(files, data_root)
    if not checked and not faults:
        raise ConfigError(
            f"--data-root {data_root} has no data of any task",
            hint="expected a copy of each dataset as ORG/NAME",
        )
    if as_json:
        found = {
            "datasets": datasets,
            "tasks": {name: asdict(one) for name, one in checked.items()},
            "absent": absent,
            "faults": [asdict(fault) for fault in faults],
        }
        typer.echo(json.dumps(found, indent=2))
    else:
        for name, one in checked.items():
            num = sum(fault.where == name for fault in faults)
            state = f"problems: {num}" if num else "ok"
            images = counted(one.num_images, "image")
            typer.echo(f"{name}: {counted(one.num_rows, 'row')}, {images}, {state}")
        for fault in faults:
            typer.echo(f"{fault.where}: {fault.message}")
        if absent:
            typer.echo(f"not in this mirror: {', '.join(absent)}")
    if faults:
        raise DatasetError(
            f"{data_root}: problems found: {len(faults)}",
            hint="copy it again: `medix-eval data pull`",
        )


@app.command("verify")
def verify_data(
    run: Annotated[Path, typer.Argument(metavar="RUN")],
    *,
    data_root: flags.DataRoot = None,
    include_path: flags.Include = None,
    as_json: flags.Json = False,
) -> None:
    """Check that the local data is what a run scored, byte by byte."""
    from medix_eval.data.tasks import mirror_at  # noqa: PLC0415
    from medix_eval.results.store import find_run  # noqa: PLC0415

    root = mirror_at(data_root)
    folder, _ = find_run(run)
    catalogue = open_catalogue(include_path)
    from medix_eval.evaluation.verify import verify_run  # noqa: PLC0415 (lm-eval: seconds)

    found = verify_run(folder, catalogue, data_root=root)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        for name, faults in found.items():
            typer.echo(f"{name}: {'; '.join(faults) or 'identical to what was scored'}")
    if any(found.values()):
        raise DatasetError(
            f"{run}: the local data is not what was scored",
            hint="a score is valid only for the data it was computed on; see above",
        )


@app.command("new")
def new_data(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A table and its images.")],
    *,
    name: Annotated[str | None, typer.Option("--name",
        help="Name of the benchmark; by default that of DIR.")] = None,
    to: Annotated[Path, typer.Option("--to", metavar="OUT",
        help="Where task files and data go.")] = Path("benchmarks"),
    licence: Annotated[str, typer.Option("--licence", help="Who may use the data.")] = "private",
    data_class: Annotated[DataClass, typer.Option("--data-class",
        help="dua: it never leaves this machine unless you say so.")] = "dua",
    as_json: flags.Json = False,
) -> None:  # fmt: skip
    """Make a benchmark from a folder with a table (CSV, Excel, Parquet) and images; check it."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder", hint="expected a table and its images")
    from medix_eval.data.check import check_mirror  # noqa: PLC0415 (lm-eval: seconds)
    from medix_eval.data.new import new_benchmark  # noqa: PLC0415 (pandas)
    from medix_eval.data.tasks import load_tasks  # noqa: PLC0415

    name = name or folder.resolve().name.lower().replace("-", "_").replace(" ", "_")
    made = new_benchmark(folder, name=name, to=to, licence=licence, data_class=data_class)
    catalogue = load_tasks([made.task_folder / name])
    _, _, faults = check_mirror(catalogue.tasks.values(), made.data_root)
    if faults:
        raise DatasetError(f"{made.data_root}: {faults[0].message}")
    command = (
        f"medix-eval --model M --tasks {name} "
        f"--include-path {made.task_folder} --data-root {made.data_root}"
    )
    if as_json:
        typer.echo(json.dumps({**asdict(made), "command": command}, indent=2, default=str))
        return
    for task, num in made.tasks.items():
        typer.echo(f"{task}: {counted(num, 'question')}")
    uses = {use: ", ".join(names) for use, names in made.columns.items() if names}
    said = ", ".join(use if use == names else f"{use} ({names})" for use, names in uses.items())
    typer.echo("\n".join([f"columns: {said}", *made.notes[:10]]))
    typer.echo(command)
