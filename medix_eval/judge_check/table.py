"""A scorecard for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medix_eval.judge_check.biases import Difference
from medix_eval.judge_check.confusion import Confusion, Rate
from medix_eval.judge_check.scorecard import Scorecard

if TYPE_CHECKING:
    from rich.console import RenderableType

_HEADER = ("class", "n", "decided", "open", "failed", "right", "false\naccept", "false\nreject")
"""Broken in two where the table would else be wider than a terminal of 80 columns."""


def for_terminal(card: Scorecard) -> RenderableType:
    """Return the scorecard as a table with notes; it reads the same without colour."""
    from rich import box  # noqa: PLC0415 (rich only where a table is shown)
    from rich.console import Group  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(title=title(card), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for number, name in enumerate(_HEADER):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for name, group in card.classes.items():
        table.add_row(*_row(name, group))
    table.add_section()
    for name, group in card.splits.items() if len(card.splits) > 1 else ():
        table.add_row(*_row(name, group))
    table.add_row(*_row("all", card.overall), style="bold")
    return Group(table, *(Text(note, style="dim") for note in _notes(card)))


def title(card: Scorecard) -> str:
    """Return one line that says who was measured on what."""
    return f"judge {card.judge['id']} · protocol {card.protocol['name']} · {labels_of(card)}"


def labels_of(card: Scorecard) -> str:
    """Say where the labels come from."""
    source = card.labels
    if "file" in source:
        return f"labels of {source['file']}"
    return f"probe set {source['version']}, {str(source['split']).replace('_', ' ')}"


def percent(share: Rate) -> str:
    """Return a share in percent.

    >>> percent(Rate(k=1, n=8, value=0.125, low=0.0, high=0.5))
    '12.5'
    """
    return "-" if share.value is None else f"{100 * share.value:.1f}"


def kappa_of(card: Scorecard) -> str:
    """Return the kappa with its interval, or a dash."""
    kappa = card.overall.kappa
    if kappa.value is None:
        return "-"
    if kappa.low is None or kappa.high is None:
        return f"{kappa.value:.2f}"
    return f"{kappa.value:.2f} ({kappa.low:.2f} to {kappa.high:.2f})"


def _row(name: str, group: Confusion) -> tuple[str, ...]:
    return (
        name,
        str(group.n),
        str(group.n_decided),
        str(group.n_abstained),
        str(group.n_failed),
        percent(group.accuracy),
        percent(group.false_accept),
        percent(group.false_reject),
    )


def _notes(card: Scorecard) -> list[str]:
    overall, usage = card.overall, card.usage
    rates = (
        f"accuracy {_with_interval(overall.accuracy)}, "
        f"balanced {_share(overall.balanced_accuracy)}, "
        f"macro F1 {_share(overall.macro_f1)}, kappa {kappa_of(card)}"
    )
    errors = (
        f"false accept {_with_interval(overall.false_accept)}, "
        f"false reject {_with_interval(overall.false_reject)}; of decided answers only"
    )
    notes = [rates, errors]
    if card.labels.get("annotators", 0) > 1:
        alpha, num_split = card.labels["alpha"], card.labels["n_split"]
        agree = "-" if alpha is None else f"{alpha:.2f}"
        notes.append(
            f"labels of {card.labels['annotators']} people, alpha {agree}; "
            f"{num_split} more answers on which they are split"
        )
    if card.length_bias is not None:
        bias = card.length_bias
        notes.append(
            "long minus short answers, accepted: right ones "
            f"{_points(bias.right_answers)}, wrong ones {_points(bias.wrong_answers)}"
        )
    if card.position_bias.reference_first is not None:
        notes.append(
            "prompts with the reference first minus prompts with the answer first, accepted: "
            f"{_points(card.position_bias.reference_first)}"
        )
    letters = card.position_bias.accuracy_by_letter
    if letters:
        said = ", ".join(f"{letter} {percent(share)}" for letter, share in letters.items())
        notes.append(f"right by the letter of the right option: {said}")
    if card.parse_failures.n:
        notes.append(
            f"first two votes equal {_with_interval(card.consistency)}; unreadable votes "
            f"{_with_interval(card.parse_failures)}"
        )
    notes.append(
        f"{usage.calls} judge calls, {usage.cached} votes from the cache, {usage.seconds:.1f} s"
    )
    return notes


def _with_interval(share: Rate) -> str:
    if share.value is None or share.low is None or share.high is None:
        return "-"
    return f"{percent(share)} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _points(found: Difference) -> str:
    if found.value is None or found.low is None or found.high is None:
        return "-"
    return f"{100 * found.value:+.1f} points ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
