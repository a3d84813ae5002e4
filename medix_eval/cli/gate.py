"""`medix-eval gate`: check runs against a policy; exit 0 if all of it is met, else 5."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medix_eval.cli import flags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medix_eval.results.gate import Check

_NOT_MET = 5


def gate(
    policy_file: Annotated[Path, typer.Argument(metavar="POLICY.yaml")],
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…")],
    *,
    baseline: Annotated[Path | None, typer.Option("--baseline", metavar="RUN",
        help="Baseline run, instead of the policy's.")] = None,
    page: Annotated[Path | None, typer.Option("--page", metavar="FILE",
        help="Write a page for the committee.")] = None,
    judging: flags.Judging = None,
    as_json: flags.Json = False,
) -> None:  # fmt: skip
    """Check runs against a policy: floors, margins to a baseline, limits on losses."""
    from medix_eval.results.gate import check_run, load_policy  # noqa: PLC0415
    from medix_eval.results.store import read_run, read_runs  # noqa: PLC0415

    policy = load_policy(policy_file)
    named = baseline or policy.baseline
    before = read_run(named, judging=judging) if named else None
    finished = read_runs(runs, judging=judging)
    results = [(run, check_run(policy, run, baseline=before)) for run in finished]
    if as_json:
        listing = [
            {
                "model": run.scores.model,
                "run": run.label,
                "checks": [check.model_dump() for check in checks],
            }
            for run, checks in results
        ]
        typer.echo(json.dumps({"policy": policy.name, "runs": listing}, indent=2))
    else:
        for run, checks in results:
            typer.echo("\n".join(_lines(run.scores.model, checks)))
    if page is not None:
        from medix_eval.report.page import gate_page  # noqa: PLC0415
        from medix_eval.storage.jsonl import write_text  # noqa: PLC0415

        write_text(page, gate_page(policy, results))
    is_met = all(check.is_met for _, checks in results for check in checks)
    raise typer.Exit(0 if is_met else _NOT_MET)


def _lines(model: str, checks: Sequence[Check]) -> list[str]:
    num_missed = sum(not check.is_met for check in checks)
    lines = [f"{model}: rules met: {len(checks) - num_missed} of {len(checks)}"]
    for check in sorted(checks, key=lambda check: check.is_met):
        rule = f"{check.rule}:" if check.wanted == "yes" else check.rule
        said = f"{'met    ' if check.is_met else 'NOT MET'}  {rule} {check.wanted}"
        if check.measured is not None and check.wanted != "yes":
            said += f": {check.measured:.3f}"
        if check.short_by is not None:
            said += f", short by {check.short_by:.3f}"
        lines.append(said + (f" ({check.note})" if check.note else ""))
    return lines
