"""`medix-train RECIPE [key=value …]`: train by a recipe, or show what that would be."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from medix_eval.cli.app import run
from medix_eval.errors import ConfigError, how_to_install
from medix_train.recipe import load_recipe, recipe_names

app = typer.Typer(
    name="medix-train",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE",
        help="A bundled recipe's name or a YAML file.")] = "",
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...",
        help="Changes to it: trl.max_steps=40")] = None,
    *,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR",
        help="By default results/training/RECIPE.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run",
        help="Load no weights: show sizes, steps and rewards.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the bundled recipes.")] = False,
) -> None:  # fmt: skip
    """Train a medical language model with the judges and scorers that evaluate it."""
    for package in ("medix_eval", "medix_train"):
        logging.getLogger(package).setLevel(logging.INFO)
    if listed:
        for name in recipe_names():
            typer.echo(f"{name:22} {load_recipe(name).summary}")
        return
    if not recipe:
        raise ConfigError("no recipe is named", hint="list them with `medix-train --list`")
    loaded = load_recipe(recipe, overrides=overrides or [])
    try:
        from medix_train import train as training  # noqa: PLC0415 (torch and trl: seconds)

        if dry_run:
            typer.echo(training.describe(loaded))
        else:
            out = out or Path("results/training") / loaded.name
            typer.echo(training.train(loaded, out=out))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in {"", "medix_eval", "medix_train"}:
            raise
        said = f"medix-train needs {missing}, which is not installed"
        raise ConfigError(said, hint=how_to_install("train")) from error


def main(argv: list[str] | None = None) -> None:
    """Run `medix-train`."""
    run(app, argv)


if __name__ == "__main__":
    main()
