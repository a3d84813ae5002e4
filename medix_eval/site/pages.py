"""The pages of the site: templates of `leaderboard/templates`, filled with what was measured.

Everything is escaped by the template engine; names and completions are text and nothing else.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from medix_eval.report.format import NOTHING, counted, percent, short, span
from medix_eval.results.scores import MARKED, MIN_SLICE, TaskScore
from medix_eval.site.boards import Board, Entry, Ranked, Rules, Standing
from medix_eval.site.columns import group_label, task_label
from medix_eval.site.details import (
    heading,
    lede,
    model_facts,
    records,
    rules_text,
    score_texts,
    scorecard_text,
    settings_of,
    slices_side_by_side,
    task_facts,
)
from medix_eval.site.illustrations import benchmark_picture, board_pictures
from medix_eval.site.measured import Measured
from medix_eval.storage.bundled import bundled
from medix_eval.storage.version import __version__

_NAME_LENGTH = 80
_TASK_FILE_LENGTH = 6000
_SLICED_MODELS = 12
_KINDS = {"multiple_choice": "an option", "closed": "yes or no", "open": "free text"}


def environment() -> Environment:
    """Return the engine with escaping on, whatever a template is called."""
    made = Environment(
        loader=FileSystemLoader(bundled("leaderboard") / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["short"] = lambda text, length=_NAME_LENGTH: short(text, length)
    made.filters |= {"counted": counted, "label": task_label}
    made.filters["percent"] = partial(percent, none=NOTHING)
    made.filters["pc"] = lambda value: f"{100 * value:.0f}"
    made.globals["version"] = __version__
    return made


def links(boards: Sequence[Board]) -> list[dict[str, str]]:
    """Return the way to each board; the first is the site's front page."""
    found = []
    for number, board in enumerate(boards):
        page = "index.html" if number == 0 else f"{board.slug}.html"
        stamp = "" if board.standing is Standing.REAL else board.standing.value
        judge = "" if not board.judges else f" · {short(board.judge, 24)}"
        label = short(board.protocol["name"], 30) + judge
        found.append({"slug": board.slug, "page": page, "label": label, "stamp": stamp})
    labels = Counter((link["label"], link["stamp"]) for link in found)
    for link in found:
        if labels[link["label"], link["stamp"]] > 1:
            link["label"] += f" · {link['slug'].rpartition('-')[2]}"
    return found


class BoardPages:
    """All pages of one board."""

    def __init__(
        self, measured: Measured, *, env: Environment, boards: list[dict[str, str]], rules: Rules
    ) -> None:
        self._measured = measured
        self._board = measured.board
        self._env = env
        self._boards = boards
        self._rules = rules
        self._link = next(link for link in boards if link["slug"] == measured.board.slug)
        self._folder = f"boards/{measured.board.slug}"
        self._rows = [self._row(index, one) for index, one in enumerate(measured.ranked)]

    def pages(self) -> Iterator[tuple[str, str]]:
        """Yield the path and the text of each page."""
        yield self._link["page"], self._front()
        yield f"{self._folder}/compare.html", self._compare()
        for row, one in zip(self._rows, self._measured.ranked, strict=True):
            yield row["page"], self._model(row, one)
        for task in self._measured.tasks:
            yield f"{self._folder}/benchmarks/{task}.html", self._benchmark(task)

    def _render(self, template: str, *, depth: int, **values: Any) -> str:
        common = {
            "root": "../" * depth,
            "boards": self._boards,
            "here": self._board.slug,
            "board": self._board,
            "board_page": self._link["page"],
            "board_label": self._link["label"],
        }
        return self._env.get_template(template).render(**common, **values)

    def _row(self, index: int, one: Ranked) -> dict[str, Any]:
        entry = one.entry
        headline = entry.groups.get(self._board.headline or "")
        facts = entry.facts
        is_open = [("weights", facts.open_weights), ("data", facts.open_data)]
        return {
            "index": index,
            "slug": one.slug,
            "name": entry.name,
            "note": "text only" if entry.run.scores.text_only else "",
            "page": f"{self._folder}/models/{one.slug}.html",
            "rank": one.rank,
            "tie": bool(one.ties_with_best),
            "withheld": "; ".join(one.withheld),
            "size": facts.parameters_b,
            "inputs": facts.inputs or "",
            "open": " ".join(word for word, yes in is_open if yes),
            "words": short(f"{entry.name} {facts.base or ''}".lower(), 240),
            "score": headline.score if headline else None,
            "span": headline.interval if headline else None,
            "span_text": span(headline.interval, NOTHING) if headline else "",
        }

    def _axis(self) -> tuple[float, float] | None:
        """Return the ends of the drawn intervals, on whole steps of ten points."""
        ends = [
            end
            for row in self._rows
            if row["score"] is not None
            for end in (row["score"], *(row["span"] or ()))
        ]
        if not ends:
            return None
        low, high = math.floor(min(ends) * 10) / 10, math.ceil(max(ends) * 10) / 10
        return (low, high) if high > low else (max(0.0, low - 0.1), min(1.0, high + 0.1))

    def _front(self) -> str:
        board, measured = self._board, self._measured
        groups = [
            {"key": name, "label": group_label(name), "size": len(members)}
            for name, members in board.groups.items()
        ]
        dates = sorted(one.entry.date for one in measured.ranked)
        return self._render(
            "board.html",
            depth=0,
            heading=heading(board),
            lede=lede(board),
            rows=self._rows,
            columns=measured.columns,
            tasks=[self._task_line(task) for task in measured.tasks],
            groups=groups,
            axis=self._axis() if board.headline else None,
            headline=board.headline,
            headline_size=len(board.groups[board.headline]) if board.headline else 0,
            dates=(dates[0], dates[-1]),
            scorecard=scorecard_text(board),
            marked=MARKED,
            rules_text=rules_text(self._rules, board.standing),
            interval_text=self._interval_text(),
            pictures=board_pictures(measured),
        )

    def _interval_text(self) -> str:
        if any(row["span"] for row in self._rows):
            return "The band is the 95 % interval of the mean, the tick the mean itself."
        return "The tick is the mean; these runs carry no intervals."

    def _task_line(self, task: str) -> dict[str, Any]:
        have = [one.entry for one in self._measured.ranked if task in one.entry.tasks]
        entry = have[0].run.entry(task)
        file = self._measured.files.get(task)
        return {
            "page": f"{self._folder}/benchmarks/{task}.html",
            "label": task_label(task),
            "kind": _KINDS.get(entry.kind, "a report"),
            "modality": "image and text" if entry.modality == "image" else "text",
            "num_rows": f"{entry.num_rows:,}",
            "data_class": entry.data_class,
            "licence": short(file.settings.licence, 60) if file else NOTHING,
            "num_models": len(have),
        }

    def _compare(self) -> str:
        board = self._board
        return self._render(
            "compare.html",
            depth=2,
            rows=self._rows,
            tasks=self._measured.tasks,
            labels=json.dumps([[task, task_label(task)] for task in self._measured.tasks]),
            group_tasks=json.dumps(
                [[name, group_label(name), members] for name, members in board.groups.items()]
            ),
        )

    def _model(self, row: Mapping[str, Any], one: Ranked) -> str:
        measured, board, entry = self._measured, self._board, one.entry
        headline = entry.groups.get(board.headline or "")
        profile = [*self._profile(entry)]
        older = [old for old in board.earlier if old.identity == entry.identity]
        return self._render(
            "model.html",
            depth=3,
            row=row,
            num_ranked=sum(other.rank is not None for other in measured.ranked),
            num_models=len(measured.ranked),
            headline_label=group_label(board.headline or "score"),
            headline_score=percent(headline.score, "") if headline else "",
            facts=model_facts(entry, num_tasks=len(measured.tasks)),
            profile=profile,
            has_rules=any(line["rules"] for line in profile),
            history=[
                {
                    "date": old.date,
                    "generation": old.run.scores.generation_digest[:8],
                    "judging": old.run.scores.judging_digest[:8],
                    "score": score_texts(old, board.headline or "")["score"],
                    "num_tasks": len(old.tasks),
                }
                for old in reversed(older)
            ],
            examples=measured.examples[entry.identity],
            settings=settings_of(entry, board),
        )

    def _profile(self, entry: Entry) -> Iterator[dict[str, Any]]:
        names = [name for name in self._board.groups if name in entry.groups]
        for name in [*names, *(task for task in self._measured.tasks if task in entry.tasks)]:
            score = entry.part(name)
            is_task = isinstance(score, TaskScore)
            yield {
                "is_group": not is_task,
                "page": f"../benchmarks/{name}.html" if is_task else "",
                "label": task_label(name) if is_task else group_label(name),
                "value": score.score if score else None,
                "middle": self._measured.median(name) if len(self._rows) > 1 else None,
                "place": self._measured.place(entry, name) or NOTHING,
                **score_texts(entry, name),
            }

    def _benchmark(self, task: str) -> str:
        measured = self._measured
        ordered = measured.ordered(task)
        results = [
            {
                "place": measured.place(one.entry, task),
                "slug": one.slug,
                "name": one.entry.name,
                **score_texts(one.entry, task),
            }
            for one, _ in ordered
        ]
        file = measured.files.get(task)
        sliced = [one for one, _ in ordered[:_SLICED_MODELS]]
        examples = [
            example
            for one, _ in ordered
            for example in measured.examples[one.entry.identity]
            if example.task == task
        ]
        entries = [one.entry for one, _ in ordered]
        line = self._task_line(task)
        return self._render(
            "benchmark.html",
            depth=3,
            task=line,
            facts=task_facts(line, next(iter(entries), None), task=task, measured=measured),
            picture=benchmark_picture(measured, task),
            results=results,
            num_results=len(results),
            has_rules=any(line["rules"] for line in results),
            slices=slices_side_by_side([one.entry.score(task) for one in sliced]),
            min_slice=MIN_SLICE,
            slice_models=[short(one.entry.name.rpartition("/")[2], 24) for one in sliced],
            history=records(entries, self._board.earlier, task=task),
            prompt=examples[0].prompt if examples else None,
            task_file=file.path.read_text(encoding="utf-8")[:_TASK_FILE_LENGTH] if file else None,
        )
