"""What a submission says of itself, held against what is known: digests, protocol, judges, tasks.

A board puts runs side by side by these stamps, so a forged one would lay a run beside runs that
were made in another way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from medix_eval.data.tasks import Catalogue, TaskFile
from medix_eval.errors import ConfigError
from medix_eval.exchange.recorded import protocol_of
from medix_eval.exchange.submission import MANIFEST, Submission
from medix_eval.judging.protocol import Protocol, load_protocol, protocol_names, stamp_now
from medix_eval.storage.digests import differences, digest

_OTHER_GENERATION = "+other-generation"
_FROM_THE_FILE = ("kind", "modality", "data_class", "cluster", "slices")


def digest_problems(given: Submission) -> Iterator[str]:
    """Hold digests against what they are of, and names against each other."""
    manifest, judging = given.manifest, given.judging
    if digest(manifest.generation) != manifest.generation_digest:
        yield "run.json: the generation digest is of other settings"
    if digest(judging.judging) != judging.judging_digest:
        yield "judging.json: the judging digest is of other settings"
    if not given.listed.protocol == judging.protocol == given.scores.protocol:
        yield "the files name different protocols"
    stated = given.listed.model_dump()
    true = {
        "model": manifest.model,
        "generation_digest": manifest.generation_digest,
        "judging_digest": judging.judging_digest,
        "synthetic": any(task.synthetic for task in manifest.tasks.values()),
    }
    for key, value in true.items():
        if stated[key] != value:
            yield f"{MANIFEST}: {key} is {stated[key]!r}, and elsewhere {value!r}"
    identities = judging.judging.get("judges")
    known = identities if isinstance(identities, list) else []
    if [judge.get("digest") for judge in judging.judges] != [digest(one) for one in known]:
        yield "judging.json: its judges are not those whose settings it gives"
    names = [judge["id"] for judge in judging.judges]
    if len({*names}) < len(names):
        yield "judging.json: two judges have one name"


def protocol_problems(given: Submission) -> Iterator[str]:
    """Make the protocol's stamp again from its settings: nobody may borrow another's digest."""
    name = str(given.judging.protocol.get("name")).removesuffix(_OTHER_GENERATION)
    kept = given.manifest.generation
    stamp = stamp_now(given.judging.protocol, generation=kept, judging=given.judging.judging)
    if name in protocol_names():
        ours = load_protocol(name)
        made = {key: kept.get(key) for key in ours.generation_settings()}
        theirs = {key: given.judging.settings.get(key) for key in ours.judging_settings()}
        for line in differences(ours.judging_settings(), theirs)[:3]:
            yield f"judging.json names protocol {name}, but its settings are others: {line}"
        if ours.stamp(made) != stamp:
            yield f"judging.json: the stamp of protocol {name} is not that of its settings"
        return
    try:
        protocol = protocol_of(given.manifest, given.judging)
    except ConfigError as error:
        yield f"judging.json: {error}"
        return
    made = {key: kept.get(key) for key in ("generation", "images", "prompt_template")}
    stamps = {_stamp(protocol, made, like=other) for other in (None, *protocol_names())}
    if stamp.get("digest") not in stamps:
        yield f"judging.json: the digest of protocol {name!r} is not that of its settings"


def task_problems(given: Submission, catalogue: Catalogue) -> Iterator[str]:
    """Hold what is said of each task against its task file, and its samples against its rows."""
    entries = {name: given.manifest.tasks[name] for name in given.judging.tasks}
    keys = {f"{name}@{entry.version}" for name, entry in entries.items()}
    for key in sorted({task for task, _ in given.completions.keys() | given.verdicts.keys()}):
        if key not in keys:
            yield f"{key}: it holds samples of a task that run.json does not know"
    restricted = {name for name, entry in entries.items() if entry.data_class == "dua"}
    for name in sorted({*given.listed.restricted} - restricted):
        yield f"{name}: its text is left out, but it is not restricted"
    for name, entry in entries.items():
        there = range(entry.num_rows)
        asked = there if entry.rows is None else frozenset(entry.rows)
        if len(asked) != entry.num_selected or not all(row in there for row in entry.rows or ()):
            yield f"{name}: run.json lists a row twice, or one that the data has not"
        taken = [one.row for key, one in given.completions.items() if key[0].startswith(f"{name}@")]
        if len({*taken}) < len(taken) or not all(row in asked for row in taken):
            yield f"{name}: two samples are of one row, or one is of a row that was not asked"
        file = catalogue.tasks.get(name)
        if file is not None and file.version == entry.version:
            if entry.source.get("path") != file.dataset_path:
                yield f"{name}: run.json names another dataset than {file.dataset_path}"
            yield from _unlike_file(name, entry.model_dump(), file)


def _unlike_file(name: str, stated: dict[str, object], file: TaskFile) -> Iterator[str]:
    settings = file.settings.model_dump(mode="json")
    for key in _FROM_THE_FILE:
        if stated[key] != settings[key]:
            yield f"{name}: run.json says {key} {stated[key]!r}, its task file {settings[key]!r}"


def _stamp(protocol: Protocol, made: Mapping[str, object], *, like: str | None) -> str:
    """Return the digest that these settings have, with the embedding of a bundled protocol."""
    embedding = load_protocol(like).embedding if like else None
    return protocol.model_copy(update={"embedding": embedding}).stamp(made)["digest"]
