"""Every error that this package raises on purpose.

MedixError
|-- ConfigError             a flag or a file that the user can fix           exit 2
|   |-- UnknownName         a task, group or protocol that does not exist
|   `-- RunMismatch         a run folder that was made with other settings
|-- DatasetError            data that is not what its task says              exit 3
|   `-- BadRow              one row that cannot be asked                     skipped
|-- ServerError             the model or the judge cannot be used at all     exit 4
|   |-- RefusesAll          it refuses every request alike
|   `-- NoJudge             there is no judge to grade with
`-- ModelError              one request failed: recorded with its sample
    |-- RequestRejected     this sample is refused: too long, its image      scored 0
    |-- RequestRefused      refused or broken, and not for what it holds     not retried
    |-- RequestFailed       a broken connection, an unreadable reply         retried
    |   |-- TimedOut        no answer within the request's time-out          retried
    |   |-- NoText          a reply without any text                         retried
    |   |-- OtherModel      another model than the one asked has answered    retried
    |   |-- Overloaded      too many requests, or just starting              retried for a while
    |   |-- EndpointFault   a web page, a redirect, 401, 404                 retried, then exit 4
    |   `-- Unreachable     no connection at all                             waited for
    |-- ReplyUnusable       an answer that is not a completion               recorded
    `-- NoAnswer            a replay without this sample                     skipped
"""

from __future__ import annotations

import errno
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from pydantic import ValidationError

NO_PATH = frozenset({errno.ENAMETOOLONG, errno.ELOOP})
"""Of a name that no file can have, and of links that lead in a circle."""
NO_FILES = frozenset({errno.EMFILE, errno.ENFILE})
"""Of a process, or a machine, that may open no more files and connections."""
MORE_FILES = (
    "`ulimit -n 4096` allows more, a smaller --concurrency needs fewer; finished work is kept"
)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class MedixError(Exception):
    """An error with one line for the user, a hint what to do, and an exit code."""

    exit_code = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(MedixError):
    """A flag or a file that the user can fix."""

    exit_code = 2


class UnknownName(ConfigError):
    """A name that does not exist; the hint suggests the closest one."""

    def __init__(
        self, what: str, name: str, known: Collection[str], *, listed_by: str = ""
    ) -> None:
        close = get_close_matches(name, known, n=1, cutoff=0.5)
        listed = f"list them with `{listed_by}`" if listed_by else f"choose from {', '.join(known)}"
        hint = f"did you mean {close[0]!r}?" if close else listed
        super().__init__(f"no {what} is named {name!r}", hint=hint)


class RunMismatch(ConfigError):
    """A run folder that was made with other settings than the ones asked for."""


class DatasetError(MedixError):
    """Data that is not what its task file says."""

    exit_code = 3


class ServerError(MedixError):
    """A model or judge server that cannot be used: unreachable, unauthorised, died."""

    exit_code = 4


class RefusesAll(ServerError):
    """The first requests were refused alike, so none of them for what its sample holds."""


class NoJudge(ServerError):
    """A judge that cannot be used; found out before the candidate answers anything."""

    def __init__(self, cause: MedixError) -> None:
        ways = (
            "name one with --judge (a folder, or openai:NAME with --judge-base-url), "
            "or score without a language model: --protocol rules"
        )
        super().__init__(f"no judge: {cause}", hint=f"{cause.hint}; {ways}" if cause.hint else ways)


class ModelError(MedixError):
    """One request that failed; the pipeline records it with its sample."""

    exit_code = 4
    requests = 0
    """How many requests were made, tries included."""
    seconds = 0.0
    """Time they took."""


class RequestRejected(ModelError):
    """The server will not take this sample: `too_long`, its `image`, or a `content_filter`."""

    def __init__(self, message: str, *, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


class RequestRefused(ModelError):
    """No answer, for another reason than what the sample holds: a failure, never a score.

    `is_schema`: for the JSON schema of the reply, so that asking without it may help.
    """

    def __init__(self, message: str, *, is_schema: bool = False) -> None:
        super().__init__(message)
        self.is_schema = is_schema


class RequestFailed(ModelError):
    """A request that may succeed later; `retry_after_s` is what the server asked for."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class NoText(RequestFailed):
    """A reply without any text, not even an empty one."""


class OtherModel(RequestFailed):
    """A reply that names another model than the one that was asked."""


class TimedOut(RequestFailed):
    """No answer within the request's time-out."""


class Overloaded(RequestFailed):
    """The server has too much to do, or is just starting; it is tried again for a while."""


class EndpointFault(RequestFailed):
    """What no working endpoint of this model answers; if it lasts, address or key are wrong."""


class Unreachable(RequestFailed):
    """No connection to the server; it is waited for, as long as the user's patience lasts."""


class ReplyUnusable(ModelError):
    """The server answered with something that is not a completion."""


UNREADABLE = frozenset({ReplyUnusable.__name__, NoText.__name__})
"""Failures of a judge that answered, and gave no verdict."""


class NoAnswer(ModelError):
    """A file of answers without one for this sample; the sample is skipped."""


class BadRow(DatasetError):
    """One row that cannot be asked; the sample is skipped, its reason names task and row."""


def how_to_install(extra: str) -> str:
    """Return the hint where a package is missing that one of our extras brings.

    >>> how_to_install("vllm")
    "install medix-eval with its extra `vllm`, in a checkout by `pip install '.[vllm]'`"
    """
    return (
        f"install medix-eval with its extra `{extra}`, in a checkout by `pip install '.[{extra}]'`"
    )


def one_line(error: BaseException) -> str:
    """Return what an error says, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def first_error(error: ValidationError) -> str:
    """Say in one line what is wrong first, and where."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    said = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"unknown key {where!r}"
    return f"{where}: {said}" if where else said


def whole_story(error: BaseException) -> str:
    """Return an error's message and its root cause: some libraries only say that it failed."""
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    return one_line(error) if first is error else f"{one_line(error)}: {one_line(first)[:300]}"


def full_disk(error: BaseException | None) -> OSError | None:
    """Return what a full disk, or a quota, said: this error or the one that caused it."""
    return _cause_with(_FULL, error)


def _cause_with(numbers: Collection[int], error: BaseException | None) -> OSError | None:
    while error is not None and not (isinstance(error, OSError) and error.errno in numbers):
        error = error.__cause__
    return error


def of_the_system(error: BaseException) -> ConfigError | None:
    """Return what the user can do where the system has said no; None for any other error."""
    if isinstance(error, OSError) and error.errno in NO_PATH:
        what = f"{str(error.filename)[:60]!r}: {error.strerror}"
        return ConfigError(what, hint="check the paths that the command names")
    if full := full_disk(error):
        hint = "free some space and run the same command again: finished work is kept"
        return ConfigError(
            f"the disk is full: {full.filename or 'a file'} was not written", hint=hint
        )
    if short := _cause_with(NO_FILES, error):
        what = f"too many open files: {short.filename or 'a file'} was not opened"
        return ConfigError(what, hint=MORE_FILES)
    return None
