"""`medix-eval export`: runs in the formats of papers and other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medix_eval.cli import flags
from medix_eval.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from medix_eval.results.store import JudgedRun

Format = Literal["markdown", "csv", "parquet", "latex", "bibtex", "methods", "lm-eval"]

# fmt: off
Form = Annotated[
    Format,
    typer.Option("--format",
                 help="markdown, latex: tasks against models. csv: a line per run and task. "
                 "parquet: a line per sample. bibtex: the datasets. methods: a paragraph. "
                 "lm-eval: its results and samples files."),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="PATH",
                 help="File to write (lm-eval: folder); without it text goes to stdout."),
]
# fmt: on


def export(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…")],
    *,
    form: Form = "markdown",
    out: Out = None,
    judging: flags.Judging = None,
) -> None:
    """Write runs as Markdown, CSV, Parquet, LaTeX, BibTeX, a methods paragraph or lm-eval files."""
    from medix_eval.results.store import read_runs  # noqa: PLC0415

    finished = read_runs(runs, judging=judging)
    files = _files()
    if form in files:
        if out is None:
            raise ConfigError(f"--format {form} needs --out", hint="it cannot be printed")
        _written(files[form], finished, out)
        return
    text = _texts()[form](finished)
    if out is None:
        typer.echo(text, nl=False)
    else:
        _written(lambda _, path: _write(path, text), finished, out)


def _written(
    write: Callable[[Sequence[JudgedRun], Path], None], runs: Sequence[JudgedRun], out: Path
) -> None:
    try:
        write(runs, out)
    except OSError as error:
        raise ConfigError(
            f"--out {out} cannot be written: {error.strerror}",
            hint="choose a path in an existing folder",
        ) from error


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _texts() -> Mapping[str, Callable[[Sequence[JudgedRun]], str]]:
    from medix_eval.report.exports import citations, methods, scores_csv  # noqa: PLC0415
    from medix_eval.report.matrix import matrix_latex, matrix_markdown  # noqa: PLC0415

    return {
        "markdown": matrix_markdown,
        "csv": scores_csv,
        "latex": matrix_latex,
        "bibtex": citations,
        "methods": methods,
    }


def _files() -> Mapping[str, Callable[[Sequence[JudgedRun], Path], None]]:
    from medix_eval.report.exports import write_samples  # noqa: PLC0415
    from medix_eval.report.lm_eval_files import write_lm_eval  # noqa: PLC0415

    return {"parquet": write_samples, "lm-eval": write_lm_eval}
