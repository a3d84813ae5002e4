"""Histories of runs, made from a seed: faults of the server, faults of the judge, cuts, resumes.

make invariant HISTORIES=10000
make invariant HISTORIES=1 SEED=4711     # tells that one
"""

from __future__ import annotations

import argparse
import gc
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from fake_world import Asked, Ended, Kill, Question, World, fake_surroundings
from truth import Truth
from vendor_replies import (
    ANSWERS,
    CANDIDATE,
    JUDGE,
    STOP,
    STOPS,
    VERDICTS,
    Makers,
    Reply,
    Said,
    draw,
    made,
)

from medix_eval.records import Kind

_RIGHT = 0.6
_ERRS = 0.1
"""How often a judge says what is not so."""
_HIGHER = 100
"""Seeds that one process takes at a time."""
_KEPT_ONCE = tuple(
    name for name in CANDIDATE if re.fullmatch("finish .* (half|whole)|cut [^,]*", name)
)
"""Replies that were once kept as answers, and still lie in folders."""
_OPTIONS = ("aorta", "liver", "spleen", "kidney")
_OPEN = ("pneumothorax", ("a fracture of the rib", "a normal heart", "some mass in the liver"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mood:
    """How a server behaves in one run."""

    faults: float
    """Share of replies that are something else than a plain answer."""
    favourite: str | None = None
    """The one fault that it has."""
    stops: float = 0.0


_WELL = Mood(faults=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """One run of a history."""

    model: Mood
    judge: Mood
    kill: Kill | None = None
    is_closed: str | None = None
    """The role whose server does not even list its models."""
    rows: tuple[int, ...] | None = None
    """What is asked, if not all."""
    old: tuple[tuple[int, str], ...] = ()
    """Questions that an older version had put a reply of this name behind, as an answer."""

    @property
    def is_well(self) -> bool:
        """Whether nothing goes wrong in it."""
        return self.model is _WELL and self.judge is _WELL and not (self.kill or self.is_closed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a history showed."""

    seed: int
    complaints: tuple[str, ...]
    story: tuple[str, ...]
    seen: Counter[str] = field(default_factory=Counter)


def told(seed: int, folder: Path) -> Told:
    """Live through the history of this seed; call it inside `fake_surroundings`."""
    rng = random.Random(seed)  # noqa: S311 (no secret)
    questions = tuple(_question(number, rng) for number in range(_how_many(rng)))
    stretches = [_stretch(rng, len(questions)) for _ in range(rng.choice((1, 1, 2, 2, 3)))]
    stretches += [Stretch(model=_WELL, judge=_WELL)] * rng.choice((1, 1, 2))
    current = stretches[0]

    def script(world: World, asked: Asked) -> Reply:
        mood = current.model if asked.role == "model" else current.judge
        times = world.counts[asked.role, asked.number, asked.vote]
        own = random.Random(f"{seed} {asked.role} {asked.number} {asked.vote} {times}")  # noqa: S311
        return _reply(world, asked, mood, own)

    def models_reply(role: str) -> Reply | None:
        if not role.startswith(current.is_closed or "-"):
            return None
        return Reply(name="closed", means=frozenset({STOP}), status=503)

    protocol = rng.choice(("rules", "rules", "medix", "medix", "medix", "cascade"))
    world = World(
        out=folder,
        questions=questions,
        protocol=protocol,
        num_judges=0 if protocol == "rules" else rng.choice((1, 1, 1, 1, 3)),
        uses_cache=rng.random() < 0.1,
        concurrency=rng.choice(((1, 1), (2, 2), (8, 8))),
        script=script,
        models_reply=models_reply,
    )
    truth, seen = Truth(world), Counter[str]()
    story = [f"protocol {world.protocol}, {_listed(questions)}"]
    for number, current in enumerate(stretches, 1):
        world.are_models_well = current.is_closed is None
        began = world.now
        if any(folder.rglob("completions.jsonl")):
            for question, name in current.old:
                if truth.knows(question):
                    continue
                seen["completions of an older version"] += 1
                said = _answer(questions[question], rng)
                story.append(f"  an older version had kept {name!r} for question {question}")
                truth.wrote_old(world.write_old(question, made(name, CANDIDATE, said, rng)))
        ended = world.run(current.rows or range(len(questions)), current.kill)
        story += [f"run {number}: {_shown(current)}", *_events(world.asked, began), _ending(ended)]
        seen += _classes(world.asked, current, ended)
        truth.after(ended, was_healed=current.is_well)
        if truth.complaints:
            break
    return Told(seed=seed, complaints=tuple(truth.complaints), story=tuple(story), seen=seen)


def _how_many(rng: random.Random) -> int:
    return rng.choice((9, 12)) if rng.random() < 0.04 else rng.choice((1, 2, 2, 3, 3, 4, 5))


def _question(number: int, rng: random.Random) -> Question:
    kind = rng.choice((Kind.MULTIPLE_CHOICE, Kind.CLOSED, Kind.OPEN, Kind.OPEN, Kind.REPORT))
    if kind is Kind.MULTIPLE_CHOICE:
        right = rng.choice(_OPTIONS)
        return Question(number=number, kind=kind, reference=right, options=_OPTIONS)
    if kind is Kind.REPORT:
        return Question(number=number, kind=kind, reference=_study(number, _OPEN[0]))
    reference = _OPEN[0] if kind is Kind.OPEN else rng.choice(("yes", "no"))
    return Question(number=number, kind=kind, reference=reference)


def _stretch(rng: random.Random, num_questions: int) -> Stretch:
    kill = None
    if rng.random() < 0.45:
        by_line = rng.random() < 0.6
        at = rng.randint(1, 2 * num_questions if by_line else 1 + 3 * num_questions)
        kill = Kill(
            at_line=at if by_line else None,
            at_reply=None if by_line else at,
            is_hard=rng.random() < 0.7,
            torn=rng.choice((0.0, 1.0, rng.random())),
            in_order=rng.random() < 0.5,
            kept=(rng.random(), rng.random()) if rng.random() < 0.2 else None,
        )
    closed = rng.choice(("model", "judge")) if rng.random() < 0.02 else None
    every = range(num_questions)
    is_part = num_questions > 1 and rng.random() < 0.12
    return Stretch(
        model=_mood(rng, CANDIDATE),
        judge=_mood(rng, JUDGE),
        kill=kill,
        is_closed=closed,
        rows=tuple(rng.sample(every, rng.randint(1, num_questions - 1))) if is_part else None,
        old=tuple((one, rng.choice(_KEPT_ONCE)) for one in every) if rng.random() < 0.1 else (),
    )


def _mood(rng: random.Random, makers: Makers) -> Mood:
    return Mood(
        faults=rng.choice((0.0, 0.15, 0.4, 0.4, 0.8, 1.0)),
        favourite=rng.choice([*makers]) if rng.random() < 0.3 else None,
        stops=rng.choice((0.0,) * 8 + (0.05, 0.3)),
    )


def _reply(world: World, asked: Asked, mood: Mood, rng: random.Random) -> Reply:
    if asked.role == "model":
        said, plain, faulty = _answer(world.questions[asked.number], rng), ANSWERS, CANDIDATE
    else:
        right = world.is_right(asked.number, asked.answer)
        is_report = world.questions[asked.number].kind is Kind.REPORT
        most = rng.choice((3, 4, 5, 5)) if is_report else 1
        points = most if right == (rng.random() >= _ERRS) else rng.choice((0, most - 1))
        said = Said(f'{{"score": {points}}}', points=points, most=5 if is_report else 1)
        plain, faulty = VERDICTS, JUDGE
    if rng.random() < mood.stops:
        return draw(STOPS, said, rng)
    if rng.random() < mood.faults:
        return (
            made(mood.favourite, faulty, said, rng) if mood.favourite else draw(faulty, said, rng)
        )
    if mood is _WELL:
        return made("verdict" if said.points is not None else "answer: content", plain, said, rng)
    return draw(plain, said, rng)


def _answer(question: Question, rng: random.Random) -> Said:
    """Say something that everybody can tell to be right or wrong."""
    is_right = rng.random() < _RIGHT
    if question.kind is Kind.MULTIPLE_CHOICE:
        right = question.options.index(question.reference)
        at = right if is_right else rng.choice([one for one in range(4) if one != right])
        return Said("ABCD"[at], is_right=is_right)
    if question.kind is Kind.CLOSED:
        other = {"yes": "no", "no": "yes"}[question.reference]
        return Said(question.reference if is_right else other, is_right=is_right)
    wrong = rng.choice(_OPEN[1])
    if question.kind is Kind.REPORT:
        wrong = _study(question.number, wrong)
    return Said(question.reference if is_right else wrong, is_right=is_right)


def _study(number: int, shown: str) -> str:
    return f"Study {number} of them: {shown}"


# The story of a history


def _listed(questions: Sequence[Question]) -> str:
    return ", ".join(f"{one.number} {one.kind} ({_right(one)})" for one in questions)


def _right(question: Question) -> str:
    return (
        "ABCD"[question.options.index(question.reference)]
        if question.options
        else question.reference
    )


def _shown(stretch: Stretch) -> str:
    kill = stretch.kill
    parts = [f"{stretch.is_closed} closed" if stretch.is_closed else ""]
    if kill is not None:
        at = f"line {kill.at_line}" if kill.at_line else f"reply {kill.at_reply}"
        how = f"killed, {kill.torn:.0%} of the line lost" if kill.is_hard else "interrupted"
        cut = f", of both files {kill.kept[0]:.0%} and {kill.kept[1]:.0%} kept" if kill.kept else ""
        parts.append(f"{how} at {at}{cut if kill.is_hard else ''}")
    return ", ".join(part for part in parts if part) or "to its end"


def _events(asked: Sequence[Asked], began: float) -> Iterator[str]:
    for one in asked:
        who = f"{one.role}, {one.number}{one.vote and '.'}{one.vote}"
        shown = f" shown {one.answer!r}" if one.answer else ""
        said = f" saying {one.reply.said!r}" if one.reply.said and one.role == "model" else ""
        points = f" for {one.reply.points}" if one.reply.points is not None else ""
        lost = "" if one.is_delivered else " (never arrived)"
        yield f"  {one.at - began:6.1f} s  {who}{shown}: {one.reply.name}{said}{points}{lost}"


def _ending(ended: Ended) -> str:
    if ended.scores is not None:
        outcomes = ended.scores.tasks["made_up"].outcomes
        counts = ", ".join(f"{count} {name}" for name, count in outcomes.items() if count)
        return f"  ended with {counts}"
    return (
        f"  ended with {type(ended.error).__name__}: {ended.error}" if ended.error else "  killed"
    )


def _classes(asked: Sequence[Asked], stretch: Stretch, ended: Ended) -> Counter[str]:
    seen = Counter(f"{one.role.split()[0]}: {one.reply.name}" for one in asked)
    seen["runs"] += 1
    seen["runs of a part of the samples"] += stretch.rows is not None
    seen["runs of a server that does not list its models"] += stretch.is_closed is not None
    if ended.was_killed and stretch.kill is not None:
        seen["runs killed" if stretch.kill.is_hard else "runs interrupted"] += 1
        seen["runs killed within a line"] += stretch.kill.is_hard and 0 < stretch.kill.torn < 1
        seen["runs that lost power"] += stretch.kill.is_hard and stretch.kill.kept is not None
    elif ended.error is not None:
        seen["runs stopped (exit 4)"] += 1
    elif ended.scores is not None:
        seen[f"runs with exit {1 if ended.scores.num_failures else 0}"] += 1
        for name, count in ended.scores.tasks["made_up"].outcomes.items():
            seen[f"outcome {name}"] += count
    return seen


# Many histories


def several(seeds: Sequence[int], *, stop_at_first: bool = False) -> list[Told]:
    """Live through several histories; the stories of those that went well are left out."""
    found = []
    shared = Path("/dev/shm")  # noqa: S108 (a folder in memory, if there is one)
    place = shared if shared.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="invariant-", dir=place) as folder, fake_surroundings():
        for seed in seeds:
            out = Path(folder) / str(seed)
            out.mkdir()
            found.append(told(seed, out))
            shutil.rmtree(out)
            if stop_at_first and found[-1].complaints:
                break
    gc.collect()  # a run keeps the collector from what was there before it
    return found


def many(first: int, number: int, *, processes: int) -> Iterator[Told]:
    """Live through histories in several processes."""
    seeds = range(first, first + number)
    parts = [seeds[at : at + _HIGHER] for at in range(0, number, _HIGHER)]
    if processes == 1:
        for part in parts:
            yield from several(part)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for found in pool.map(several, parts):
            yield from found


def report(one: Told) -> str:
    """Tell a history that went wrong."""
    again = f"make invariant HISTORIES=1 SEED={one.seed}"
    return "\n".join(
        [f"seed {one.seed} ({again})", *one.story, *(f"! {c}" for c in one.complaints)]
    )


def main() -> None:
    """Live through as many histories as asked for, and tell those that went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first history")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--stories", type=int, default=3, help="how many to tell at most")
    parser.add_argument("--table", action="store_true", help="count what was seen")
    given = parser.parse_args()
    began, seen, wrong, done = time.monotonic(), Counter[str](), list[Told](), 0
    for one in many(given.seed, given.number, processes=given.processes):
        seen += one.seen
        done += 1
        if one.complaints:
            wrong.append(one)
            if len(wrong) <= given.stories:
                _say(report(one))
        elif given.number == 1:
            _say(*one.story)
    if given.table:
        _say(*(f"{count:8} {name!r}" for name, count in sorted(seen.items())))
    seconds = time.monotonic() - began
    _say(f"{done} histories, {seen['runs']} runs, {seconds:.0f} s ({done / seconds:.0f} a second)")
    _sum_up(wrong)
    sys.exit(bool(wrong))


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _sum_up(wrong: Sequence[Told]) -> None:
    kinds: dict[str, list[int]] = {}
    for one in wrong:
        for complaint in one.complaints:
            words = complaint.partition("; votes")[0].split()
            kind = " ".join(word for word in words if not (word.isdigit() or "/" in word))
            kinds.setdefault(kind, []).append(one.seed)
    for kind, seeds in sorted(kinds.items(), key=lambda item: -len(item[1])):
        _say(f"{len(seeds):6} {kind}: seeds {seeds[:5]}")


if __name__ == "__main__":
    main()
