"""`medix-eval report`: the page of a finished run, written again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medix_eval import flags
from medix_eval.commands.arguments import check_folder, open_catalogue

# fmt: off
Images = Annotated[
    Literal["none", "thumbnail", "original"],
    typer.Option("--images",
                 help="Embed the images, read again from their datasets: small, or as stored."),
]
# fmt: on


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN")],
    *,
    images: Images = "thumbnail",
    data_root: flags.DataRoot = None,
    include_path: flags.Include = None,
) -> None:
    """Write report.html of a run: scores, settings and every sample, in one file."""
    from medix_eval.judged_run import read_run  # noqa: PLC0415
    from medix_eval.report.pictures import read_pictures  # noqa: PLC0415
    from medix_eval.report.run_page import write_run_page  # noqa: PLC0415

    finished = read_run(run)
    root = check_folder("--data-root", data_root)
    catalogue = open_catalogue(include_path)
    pictures = read_pictures(finished, catalogue, data_root=root, size=images)
    typer.echo(write_run_page(finished, images=pictures))
