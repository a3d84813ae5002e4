"""The page that a committee reads: which rules a run meets, which not, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from medix_eval.report.page import render
from medix_eval.results.gate import Check, Policy
from medix_eval.results.store import JudgedRun


def gate_page(policy: Policy, results: Sequence[tuple[JudgedRun, Sequence[Check]]]) -> str:
    """Return the page of one policy held against some runs."""
    return render(
        "gate.html.jinja",
        policy=policy,
        results=results,
        is_met=all(check.is_met for _, checks in results for check in checks),
        today=datetime.now(UTC).date().isoformat(),
    )
