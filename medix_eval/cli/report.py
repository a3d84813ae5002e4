"""`medix-eval report`: the page of a finished run, written again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medix_eval.cli import flags
from medix_eval.cli.arguments import check_folder, open_catalogue

# fmt: off
Images = Annotated[
    Literal["none", "thumbnail", "original"],
    typer.Option("--images",
                 help="Embed the images, read again from their datasets: small, or as stored."),
]
Out = Annotated[
    Path,
    typer.Option("--out", metavar="FILE", help="Where the page of a comparison goes."),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Compare runs of different protocol, judge or data; marked."),
]
# fmt: on


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…")],
    *,
    out: Out = Path("comparison.html"),
    images: Images = "thumbnail",
    force: Force = False,
    data_root: flags.DataRoot = None,
    include_path: flags.Include = None,
) -> None:
    """Write report.html of a run, or one page that compares several; the first is the baseline."""
    from medix_eval.report.pictures import read_pictures  # noqa: PLC0415
    from medix_eval.results.store import read_run  # noqa: PLC0415

    finished = [read_run(run) for run in runs]
    root = check_folder("--data-root", data_root)
    catalogue = open_catalogue(include_path)
    if len(finished) == 1:
        from medix_eval.report.page import write_run_page  # noqa: PLC0415

        pictures = read_pictures(finished[0], catalogue, data_root=root, size=images)
        typer.echo(write_run_page(finished[0], images=pictures))
        return
    from medix_eval.report.compare_page import compare_page  # noqa: PLC0415
    from medix_eval.results.comparison import compare_runs  # noqa: PLC0415
    from medix_eval.storage.jsonl import write_text  # noqa: PLC0415

    found = compare_runs(finished, force=force)
    pictures = read_pictures(finished[0], catalogue, data_root=root, size=images)
    write_text(out, compare_page(found, finished, images=pictures))
    typer.echo(out)
