"""Results of other harnesses as they lie on disk: lm-evaluation-harness, MedEvalKit, MediX-R1.

The official layout of MediX-R1 is written, too:

    MODEL.jsonl        {id: "<task>_<row>", question, answer, response}
    MODEL_eval.jsonl   the same, and evaluation: {score}: 0 or 1, reports 0 to 5
    MODEL_score.txt    a line a task, and their mean

It does not state the data's revision, the judge or the settings. What we write has
`medix-eval.json` next to these, which other readers ignore.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from medix_eval.errors import ConfigError, DatasetError
from medix_eval.results.store import JudgedRun, JudgedSample, slug
from medix_eval.storage.jsonl import read_lines, write_text
from medix_eval.storage.mirror import sha256_of

_EXACT = 1e-4
"""Claims are full numbers here, or have four digits."""
_METRICS = ("score", "acc", "exact_match", "em", "accuracy")
"""In this order the first that a sample has is its score."""


def is_lm_eval(folder: Path) -> bool:
    """Tell whether a folder holds `results_*.json` with its samples."""
    return any(folder.glob("results_*.json")) and any(folder.glob("samples_*.jsonl"))


def read_lm_eval(folder: Path) -> ForeignResults:
    """Read the newest results file and the samples beside it."""
    path = max(folder.glob("results_*.json"), key=lambda file: file.name)
    results = _json(path)
    if not isinstance(results, dict) or not isinstance(results.get("results"), dict):
        raise ConfigError(f"{path} has no results")
    config = _mapping(results.get("config"))
    arguments = _mapping(config.get("model_args"))
    model = results.get("model_name") or arguments.get("model") or arguments.get("pretrained")
    found = ForeignResults(
        layout="lm-eval",
        model=str(model or folder.name),
        files={path.name: sha256_of(path)},
        synthetic=bool(config.get("synthetic")),
    )
    date = path.stem.removeprefix("results_")
    for task, metrics in results["results"].items():
        metric = next((name for name in _METRICS if f"{name},none" in _mapping(metrics)), None)
        if metric is None or task in _mapping(results.get("groups")):
            continue
        stated = metrics[f"{metric},none"]
        if isinstance(stated, int | float):
            found.claimed[task] = StatedScore(float(stated), _EXACT)
        rows = _mapping(_mapping(results.get("n-samples")).get(task)).get("original")
        if isinstance(rows, int) and rows > 0:
            found.num_rows[task] = rows
        samples = folder / f"samples_{task}_{date}.jsonl"
        if not samples.is_file():
            continue
        found.files[samples.name] = sha256_of(samples)
        for line, at in lines_of(samples, found):
            if (sample := _lm_eval_sample(line, task=task, metric=metric, place=at)) is None:
                found.problems.append(f"{at} has no doc_id, no response or no {metric} in [0, 1]")
            else:
                found.samples.append(sample)
    return found


def is_medevalkit(folder: Path) -> bool:
    """Tell whether a folder, or one below it, holds `results.json` with `metrics.json`."""
    return bool(_medevalkit_tasks(folder))


def read_medevalkit(folder: Path) -> ForeignResults:
    """Read every benchmark of an output folder; its rows have no ids, so their order counts."""
    found = ForeignResults(layout="medevalkit", model=folder.resolve().name, files={})
    for path in _medevalkit_tasks(folder):
        task = path.parent.name.lower().replace("-", "_") if path.parent != folder else folder.name
        name = f"{path.parent.name}/{path.name}"
        found.files[name] = sha256_of(path)
        rows, metrics = _json(path), _json(path.with_name("metrics.json"))
        if not isinstance(rows, list):
            raise ConfigError(f"{path} is not a list of samples")
        total = metrics.get("total metrics") if isinstance(metrics, dict) else None
        if isinstance(total, dict) and isinstance(total.get("acc"), int | float):
            found.claimed[task] = StatedScore(float(total["acc"]), _EXACT)
        found.num_rows[task] = len(rows)
        for row, line in enumerate(rows):
            place = f"{name}, sample {row}"
            sample = _medevalkit_sample(line, task=task, row=row, place=place)
            if sample is None:
                found.problems.append(f"{place} has no response or no verdict")
            else:
                found.samples.append(sample)
    return found


def _lm_eval_sample(
    line: Mapping[str, Any], *, task: str, metric: str, place: str
) -> ForeignSample | None:
    score, row, response = line.get(metric), line.get("doc_id"), _lm_eval_response(line)
    if not isinstance(row, int) or isinstance(row, bool) or response is None:
        return None
    if score is not None and (not isinstance(score, int | float) or not 0 <= score <= 1):
        return None
    return ForeignSample(
        task=task,
        row=row,
        question=_lm_eval_prompt(line.get("arguments")),
        reference=str(line.get("target", "")),
        response=response,
        score=None if score is None else float(score),
        verdict=json.dumps({metric: score}),
        place=place,
    )


def _lm_eval_response(line: Mapping[str, Any]) -> str | None:
    """Return what the model wrote; of options that were weighed, the likeliest."""
    responses = line.get("resps")
    if not isinstance(responses, list) or not responses:
        return None
    first = responses[0][0] if isinstance(responses[0], list) and responses[0] else responses[0]
    if not isinstance(first, list):
        return first if isinstance(first, str) else None
    try:
        weights = [float(one[0][0]) for one in responses]
        likeliest = max(range(len(weights)), key=weights.__getitem__)
        arguments = line["arguments"]
        if isinstance(arguments, dict):
            return str(arguments[f"gen_args_{likeliest}"]["arg_1"]).strip()
        return str(arguments[likeliest][1]).strip()
    except (LookupError, TypeError, ValueError):
        return None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _lm_eval_prompt(arguments: Any) -> str:
    """Return the prompt of the first request, in whichever of its forms it was logged."""
    if isinstance(arguments, dict):
        arguments = next(iter(arguments.values()), "")
        arguments = arguments.get("arg_0", "") if isinstance(arguments, dict) else arguments
    while isinstance(arguments, list) and arguments:
        arguments = arguments[0]
    return str(arguments or "")


def _medevalkit_tasks(folder: Path) -> list[Path]:
    found = [*folder.glob("results.json"), *sorted(folder.glob("*/results.json"))]
    return [path for path in found if path.with_name("metrics.json").is_file()]


def _medevalkit_sample(line: Any, *, task: str, row: int, place: str) -> ForeignSample | None:
    if not isinstance(line, dict) or not isinstance(line.get("response"), str):
        return None
    correct = line.get("correct")
    if not isinstance(correct, bool | int | float) or not 0 <= correct <= 1:
        return None
    options = line.get("choices") or line.get("options") or ()
    return ForeignSample(
        task=task,
        row=row,
        question=str(line.get("question") or line.get("prompt") or ""),
        reference=str(line.get("answer", "")),
        response=line["response"],
        score=float(correct),
        verdict=json.dumps({"correct": correct}),
        place=place,
        options=tuple(map(str, options)) if isinstance(options, list) else (),
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON") from error


Layout = Literal["official", "lm-eval", "medevalkit"]
_SHOWN = 12
_TASK = re.compile(r"[A-Za-z0-9][\w .+-]*", re.ASCII)
_MOST_ROWS = 10_000_000


class StatedScore(NamedTuple):
    """A stated score, and its rounding error."""

    value: float
    within: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignSample:
    """One answered question, as the other harness scored it."""

    task: str
    row: int
    question: str
    reference: str
    response: str
    score: float | None
    """In [0, 1]; None where it has no verdict."""
    verdict: str
    """The verdict as written in the file."""
    place: str
    """File and line, for messages."""
    options: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class ForeignResults:
    """Everything that was found in one folder."""

    layout: Layout
    model: str
    files: dict[str, str]
    """SHA-256 of every file that was read, by name."""
    samples: list[ForeignSample] = field(default_factory=list)
    claimed: dict[str, StatedScore] = field(default_factory=dict)
    """The scores that the files state, by task, in [0, 1]."""
    claimed_mean: tuple[StatedScore, tuple[str, ...]] | None = None
    """The mean that the files state, and of which tasks."""
    num_rows: dict[str, int] = field(default_factory=dict)
    """How many rows a task has, where the files say so."""
    synthetic: bool = False
    problems: list[str] = field(default_factory=list)
    """What makes the files unusable, each naming its place."""

    def refuse_defects(self, folder: Path) -> None:
        """Raise `DatasetError` naming what is wrong, if anything is."""
        first: dict[tuple[str, int], str] = {}
        for one in self.samples:
            if not _TASK.fullmatch(one.task):
                self.problems.append(f"{one.place} is of {one.task!r}, which is not a task name")
            if not 0 <= one.row < _MOST_ROWS:
                self.problems.append(f"{one.place} is of row {one.row}")
            before = first.setdefault((one.task, one.row), one.place)
            if before != one.place:
                said = f"{one.place} answers {one.task} row {one.row} again, after {before}"
                self.problems.append(said)
        if not self.samples and not self.problems:
            self.problems.append("no answered samples")
        if self.problems:
            more = len(self.problems) - _SHOWN
            shown = "; ".join(self.problems[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
            raise DatasetError(f"{folder}: {shown}", hint="nothing was imported")


def lines_of(path: Path, found: ForeignResults) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield every line with its place; an incomplete last line is a defect."""
    number = 0
    for number, line in enumerate(read_lines(path), 1):
        yield line, f"{path.name}, line {number}"
    with path.open("rb") as file:
        if sum(1 for _ in file) > number:
            found.problems.append(f"{path.name}, line {number + 1} is incomplete")


NOTE = "medix-eval.json"
_ID = re.compile(r"(?P<task>.+)_(?P<row>\d+)")
_CLAIM = re.compile(
    r"^\W*(?P<name>[A-Za-z][\w ]*?)\W*[:=|,\t ]\s*(?P<value>\d+(?:\.\d+)?(?:e-\d+)?)", re.MULTILINE
)
_GLUED = re.compile(r"(?<=[\d%])(?=(?!e-\d)[A-Za-z])")
"""Each run appends its table to the file without a line break first."""
_WITHIN = 0.0005
_MOST_POINTS = 5.0


def is_official(folder: Path) -> bool:
    """Tell whether a folder holds this layout."""
    return _answers(folder) is not None


def read_official(folder: Path) -> ForeignResults:
    """Read the three files; every defect is noted with its line, none is passed over."""
    answers = _answers(folder)
    if answers is None:
        raise ConfigError(f"{folder} has no MODEL.jsonl with a MODEL_eval.jsonl")
    name = answers.stem
    judged = folder / f"{name}_eval.jsonl"
    claims = folder / f"{name}_score.txt"
    note = _note(folder)
    found = ForeignResults(
        layout="official",
        model=str(note.get("model") or name),
        files={path.name: sha256_of(path) for path in (answers, judged, claims) if path.is_file()},
        num_rows=_counts(note.get("num_rows")),
        synthetic=bool(note.get("synthetic")),
    )
    verdicts: dict[str, tuple[Mapping[str, Any], str]] = {}
    for line, place in _lines(judged, found):
        if line["id"] in verdicts:
            found.problems.append(f"{place} judges {line['id']} again")
        verdicts[line["id"]] = (line, place)
    for line, place in _lines(answers, found):
        found.samples.append(_sample(line, place, verdicts.pop(line["id"], None), found))
    found.problems += [
        f"{place} judges an answer that does not exist" for _, place in verdicts.values()
    ]
    if claims.is_file():
        text = claims.read_text(encoding="utf-8", errors="replace")
        found.claimed, found.claimed_mean = read_claims(text)
    return found


def write_official(run: JudgedRun, folder: Path) -> list[Path]:
    """Write a run in this layout, and return its files. Restricted samples are left out.

    The layout has no place for a sample without a verdict: it is in the first file only.
    """
    name = slug(run.scores.model)
    answers, judged = folder / f"{name}.jsonl", folder / f"{name}_eval.jsonl"
    left_out = sorted(task for task in run.judging.tasks if run.entry(task).data_class == "dua")
    with answers.open("w", encoding="utf-8") as plain, judged.open("w", encoding="utf-8") as scored:
        for sample in run.samples():
            completion, verdict = sample.completion, sample.verdict
            if sample.task in left_out or completion.completion is None:
                continue
            line: dict[str, Any] = {
                "id": f"{sample.task.removesuffix('_compat')}_{completion.row}",
                "question": completion.prompt,
                "answer": completion.reference,
                "response": completion.completion,
            }
            plain.write(json.dumps(line, ensure_ascii=False) + "\n")
            if verdict.score is not None:
                line["evaluation"] = {"score": _points(sample, is_report=_is_report(line["id"]))}
                scored.write(json.dumps(line, ensure_ascii=False) + "\n")
    stated = {
        task.removesuffix("_compat"): row.score
        for task, row in run.scores.tasks.items()
        if task not in left_out and row.score is not None
    }
    mean = 100 * sum(stated.values()) / len(stated) if stated else 0.0
    lines = [f"{task}: {score:.6f}" for task, score in stated.items()]
    claims = folder / f"{name}_score.txt"
    write_text(claims, "\n".join([*lines, f"Overall: {mean:.4f}"]) + "\n")
    note = {
        "model": run.scores.model,
        "synthetic": run.scores.synthetic,
        "num_rows": {
            task.removesuffix("_compat"): run.entry(task).num_rows for task in run.judging.tasks
        },
        "restricted_left_out": left_out,
        "protocol": run.scores.protocol,
        "judges": run.scores.judges,
    }
    write_text(folder / NOTE, json.dumps(note, indent=2, ensure_ascii=False) + "\n")
    return [answers, judged, claims, folder / NOTE]


def _answers(folder: Path) -> Path | None:
    pairs = [
        path.with_name(path.name.removesuffix("_eval.jsonl") + ".jsonl")
        for path in sorted(folder.glob("*_eval.jsonl"))
    ]
    found = [path for path in pairs if path.is_file()]
    if len(found) > 1:
        listed = ", ".join(path.stem for path in found)
        raise ConfigError(f"{folder} has several models: {listed}", hint="use one folder each")
    return found[0] if found else None


def _counts(listed: object) -> dict[str, int]:
    if not isinstance(listed, dict):
        return {}
    return {str(task): num for task, num in listed.items() if isinstance(num, int) and num > 0}


def _note(folder: Path) -> dict[str, Any]:
    path = folder / NOTE
    try:
        note = json.loads(path.read_bytes()) if path.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON") from error
    return note if isinstance(note, dict) else {}


def _lines(path: Path, found: ForeignResults) -> Iterator[tuple[dict[str, Any], str]]:
    for line, place in lines_of(path, found):
        # Of a reply without content the published code keeps null.
        response = "" if line.get("response", 0) is None else line.get("response")
        if _ID.fullmatch(str(line.get("id", ""))) and isinstance(response, str):
            yield line | {"response": response}, place
        else:
            found.problems.append(f"{place} has no id of the form TASK_ROW or no response")


def _sample(
    line: Mapping[str, Any],
    place: str,
    judged: tuple[Mapping[str, Any], str] | None,
    found: ForeignResults,
) -> ForeignSample:
    name = _ID.fullmatch(line["id"])
    assert name is not None  # noqa: S101 (checked as the line was read)
    points: object = None
    if judged is not None:
        verdict, where = judged
        if verdict["response"] != line["response"]:
            found.problems.append(f"{where} judges another response than {place} gives")
        evaluation = verdict.get("evaluation")
        points = evaluation.get("score") if isinstance(evaluation, dict) else None
        if not _is_possible(points, is_report=_is_report(line["id"])):
            found.problems.append(f"{where}: {line['id']} has the score {points!r}")
            points = None
    most = _MOST_POINTS if _is_report(line["id"]) else 1.0
    return ForeignSample(
        task=name["task"],
        row=int(name["row"]),
        question=str(line.get("question", "")),
        reference=str(line.get("answer", "")),
        response=line["response"],
        score=float(points) / most if isinstance(points, int | float) else None,
        verdict=json.dumps({"score": points}),
        place=place,
    )


def _points(sample: JudgedSample, *, is_report: bool) -> float:
    score = sample.verdict.score or 0.0
    if not is_report and score not in {0.0, 1.0}:
        raise ConfigError(
            f"{sample.task} {sample.verdict.sample_id} has the score {score:g}, but the official "
            "layout allows only 0 and 1",
            hint="submit it without --official",
        )
    return score * _MOST_POINTS if is_report else score


def _is_report(sample_id: str) -> bool:
    """Tell a report by its name, as the published code does."""
    return "mimic" in sample_id


def _is_possible(points: object, *, is_report: bool) -> bool:
    if isinstance(points, bool) or not isinstance(points, int | float):
        return False
    return 0 <= points <= _MOST_POINTS if is_report else points in {0, 1}


def read_claims(
    text: str,
) -> tuple[dict[str, StatedScore], tuple[StatedScore, tuple[str, ...]] | None]:
    r"""Read the scores stated last, out of 1 or of 100, and the mean of the last table.

    >>> claims, mean = read_claims("medqa: 0.5\nOverall: 50.0medqa: 0.25\nOverall: 25.0")
    >>> claims["medqa"].value, mean[0].value, mean[1]
    (0.25, 0.25, ('medqa',))
    """
    claims, mean, table = {}, None, list[str]()
    for line in _CLAIM.finditer(_GLUED.sub("\n", text)):
        name, value = line["name"].strip(), float(line["value"])
        decimals = len(line["value"].partition(".")[2])
        if name.lower() in {"overall", "average"}:
            mean = StatedScore(value / 100, 0.005 * 10**-decimals), tuple(table)
            table = []
        elif value > 1:
            claims[name] = StatedScore(value / 100, 0.005 * 10**-decimals)
            table.append(name)
        else:
            claims[name] = StatedScore(value, min(_WITHIN, 0.5 * 10**-decimals))
            table.append(name)
    return claims, mean
