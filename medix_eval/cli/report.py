"""`medix-eval report`: write the page of a finished run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medix_eval.cli import flags
from medix_eval.cli.flags import open_catalogue

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
    typer.Option("--force", help="Compare even if protocol, judge or data differ; marked."),
]
# fmt: on


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…")],
    *,
    out: Out = Path("comparison.html"),
    images: Images = "thumbnail",
    force: Force = False,
    judging: flags.Judging = None,
    data_root: flags.DataRoot = None,
    include_path: flags.Include = None,
) -> None:
    """Write report.html of a run, or one page that compares several; the first is the baseline."""
    from medix_eval.evaluation import api  # noqa: PLC0415

    if len(runs) == 1:
        run = api.load_run(runs[0], judging=judging)
        typer.echo(run.report(images=images, data_root=data_root, include_path=include_path))
        return
    from medix_eval.data.tasks import mirror_at  # noqa: PLC0415
    from medix_eval.report.compare_page import compare_page  # noqa: PLC0415
    from medix_eval.report.pictures import read_pictures  # noqa: PLC0415
    from medix_eval.storage.jsonl import write_text  # noqa: PLC0415

    finished = api.load_runs(*runs, judging=judging)
    found = api.compare(*finished, force=force)
    judged = [run.judged for run in finished]
    root, catalogue = mirror_at(data_root), open_catalogue(include_path)
    pictures = read_pictures(judged[0], catalogue, data_root=root, size=images)
    write_text(out, compare_page(found, judged, images=pictures))
    typer.echo(out)
