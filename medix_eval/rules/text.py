r"""Read text as tokens, so that two spellings of one thing are equal and two things never are.

Case, quotes, markdown, LaTeX, `the`, most punctuation, hyphens inside words, the script of digits
and a JSON object around an answer carry no meaning here. What changes a value stays a token: signs,
`<`, `+`, `/`, `%`, decimals, exponents, a `-` after `HER2`, the `x` of `28x27`, the colon of `3:1`,
the brackets of `[0, 9)`, a dash at a number (it may be a minus), a question mark. The table of what
is equated, and of what never is, stands in the README; a test reads it from there.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any


def listed(spaced: str) -> tuple[str, ...]:
    """Return the words of a list that is written with spaces."""
    return tuple(spaced.split())


@cache
def data_of(name: str) -> Mapping[str, Any]:
    """Return what a data file of the rules holds; most commands need none of them."""
    import yaml  # noqa: PLC0415 (10 ms)

    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    held: Mapping[str, Any] = yaml.load(text, Loader=yaml.CSafeLoader)
    return held


def terms() -> Mapping[str, Any]:
    """Return what `terms.yaml` lists."""
    return data_of("terms.yaml")


@cache
def terms_of(name: str) -> frozenset[str]:
    """Return a list of words of `terms.yaml`."""
    return frozenset(str(terms()[name]).split())


SOFT = frozenset(".,;:!()[]{}") | {"\n", "--"}
"""Tokens that only part text; they are skipped where words are compared."""
SKIPPED = SOFT | {"the"}
_SENTENCE_ENDS = frozenset("!?\n")
ARTICLES = frozenset({"a", "an"})
INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Characters that no reader sees: an answer that carries them is not what it looks like."""
DIRECTION_MARKS = frozenset("\u061c\u200e\u200f")
"""Invisible too, but any text beside Arabic or Hebrew carries them: they hide nothing."""
FRACTION = "\u2044"
"""The bar of ½, which is always a fraction; a slash may part anything."""
DECIMAL_COMMA = ",,"
"""A comma between digits without a space: "1,5" may be one number, or two."""
_KEYS = {one: one for one in listed("Mg mM nM uM μM Ms")} | {FRACTION: "/", DECIMAL_COMMA: ","}
"""What is not compared in lower case: magnesium and molar are not milligram and millimetre."""

# An exponent must not melt into its base: 10³ is not 103, and 2½ is not 21/2.
_SPELLINGS = str.maketrans(
    {fraction: f" {fraction}" for fraction in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
    | dict.fromkeys("‐‑‒–−﹣－", "-")  # noqa: RUF001
    | dict.fromkeys("—―", "--")
    | dict.fromkeys("‘’‚‛′´", "'")  # noqa: RUF001
    | dict.fromkeys("“”„‟″«»", '"')
    | {"。": ". ", "、": ",", "「": '"', "」": '"', "【": " ", "】": " "}
    | dict.fromkeys("→⇒➜", ":")
    | {"≤": "<=", "≥": ">=", "⩽": "<=", "⩾": ">="}
)
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_SUBSCRIPT = re.compile(r"(?<=[A-Z])_\{?([0-9]+)\}?(?![^\W_])")
_DIGIT = re.compile(r"(?![0-9])\d")
_JSON = re.compile(r"(?:```(?:json)?\s*)?(\{[^{}]*\})\s*(?:```)?", re.IGNORECASE)
_INTERVAL = re.compile(
    r"\[[^\[\]()]{0,40}\)|\([^\[\]()]{0,40}\]|\[\s*[-+\d.∞]{1,40}\s*[,;-]\s*[-+\d.∞]{1,40}\s*\]"
)
_CLOSED = str.maketrans("[]", "⟦⟧")
"""[0, 9) holds 0 and (0, 9) does not: beside the numbers of an interval a bracket is a token."""
_POWER = re.compile(
    r"((?<![^\W\d_])[ ]?[xX×*·⋅][ ]?)?(?<![\d.,])10(?:\^\{?|\*(?=[0-9]{1,2}/))"
    r"\+?(-?[0-9]{1,2})\}?(?![\d.])(?(1)|(?=[ ]?/))"
)
"""A factor, or what is counted a litre: laboratories print 10^9/L, x10^9/L and 10*9/L."""

# Accents on letters in words; a letter that stands alone is another one with an accent. Strokes
# through letters stay, too: struck-out text is not what it spells.
_MARK = "[\u0300-\u0304\u0306-\u030c\u0327\u0328]"
_MARKS = re.compile(_MARK)
_RUN = re.compile(rf"(?:[^\W_]|{_MARK}|'(?=[^\W_]))+")
_BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")
"""What is put into a box is the answer; it is a clause of its own."""
_SCRIPTS = re.compile(
    "(?<=[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])(?=[a-zA-Z\u00df\u1e9e\uff21-\uff5a])"
    "|(?<=[a-zA-Z\u00df\u1e9e\uff21-\uff5a])(?=[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])"
)
"""Between Chinese, Japanese or Korean and a Latin letter, which are no one word."""
_LATEX = re.compile(
    r"\\(?:[dt]?frac\s*\{([^{}\\]{1,20})\}\s*\{([^{}\\]{1,20})\}|([A-Za-z]+|[,;:!% ]))"
)
_TOKEN = re.compile(
    r"""
      (?P<line>  \n\s* )
    | (?P<link>  (?<=[0-9])[ ]?(?:[xX×*:-])[ ]?(?=[0-9]) )         # 28x27, 3:1, 5-10
    | (?P<number>(?:(?<![\w)\]-])-)?
                 (?:[0-9]{1,3}(?:,[0-9]{3}){1,6}(?!,?[0-9])(?:\.[0-9]+)?
                   |[0-9]+(?:\.[0-9]+)?|(?<![0-9])\.[0-9]+) )
    | (?P<word>  [^\W\d_](?:[^\W_]|'(?=[^\W_]))* )
    | (?P<minus> (?<=\w)-(?![\w-]) | -\Z )                          # HER2-
    | (?P<denial>!(?=[\w=]) )                                        # !B, !=
    | (?P<dash>  -(?<=\w-)-+ | --+(?![.]?[0-9]) | -(?<!\w-)(?=\s+[^\s\d]) )  # B - aspirin
    | (?P<blank> [\s"'*`#_$] | -(?<=\w-)(?=\w) )
    | (?P<comma> ,(?<=[0-9],)(?=[0-9]) )
    | (?P<and>   & )
    | (?P<other> . )
    """,
    re.VERBOSE,
)

# Written as a word would be, because a colon or a dash alone only parts text.
_LINKS = {"*": "x", "×": "x", "X": "x", ":": "ratio", "-": "range"}


@dataclass(frozen=True, slots=True)
class Text:
    """A text as tokens: as written, and as compared."""

    raw: tuple[str, ...]
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def ends_sentence(self, at: int) -> bool:
        """Tell whether this token ends a sentence; the dot of "E. coli" does not."""
        key = self.keys[at]
        return key in _SENTENCE_ENDS or (key == "." and self.starts_sentence(at + 1))

    def starts_sentence(self, at: int) -> bool:
        """Tell whether a sentence may start here, after a dot: with anything but a small letter."""
        return at >= len(self) or not self.raw[at][0].islower()


def _number(token: str) -> str:
    token = token.replace(",", "").replace("-.", "-0.")
    return f"0{token}" if token[0] == "." else token


_SPELT: dict[str | None, Callable[[str], str]] = {
    "line": lambda _: "\n",
    "link": lambda token: _LINKS.get(token.strip(), token.strip()),
    "number": _number,
    "word": lambda token: token.replace("'", ""),
    "denial": lambda _: "¬",
    "dash": lambda _: "--",
    "comma": lambda _: DECIMAL_COMMA,
    "and": lambda _: "and",
}
"""How the tokens of a group are spelt; those of other groups stay as they are."""


def plain(text: str) -> str:
    """Return a text in the characters that are compared: without accents, with one minus."""
    text = unicodedata.normalize("NFKD", text.translate(_SPELLINGS))
    # Some characters, such as a lowered minus, are only now what has another spelling.
    text = text.translate(_SPELLINGS)
    text = _RUN.sub(_without_accents, text) if _MARKS.search(text) else text
    return unicodedata.normalize("NFC", text)


def _without_accents(word: re.Match[str]) -> str:
    letters = _MARKS.sub("", word[0])
    return word[0] if len(letters) == 1 else letters


# References, options and short answers come again and again.
@lru_cache(maxsize=256)
def read(text: str) -> Text:
    """Split a text into tokens, in time linear in its length."""
    if text[:1] in "{`" and (held := _JSON.fullmatch(text.strip())):
        text = _from_json(held[1]) or text
    if not text.isascii():
        text = _RAISED.sub(r"^\g<0>", INVISIBLE.sub("", text))
        text = _SCRIPTS.sub(" ", plain(text))
        if not text.isascii():
            text = _DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), text)
    if "\\" in text:
        text = _LATEX.sub(_from_latex, _BOXED.sub(r", answer: \1 ", text))
        text = text.replace("^°", "°").replace("^{°}", "°")
    if "10" in text and ("^" in text or "*" in text):
        text = _POWER.sub(r" x 10^\2", text)
    if "_" in text:
        text = _SUBSCRIPT.sub(r"\1", text)
    if "$" in text and text.count("$") % 2:
        text = text.replace("$", "¤")  # money, where two would be marks of a formula
    if text[-1:] in {"'", '"'} and text[-2:-1].isdigit() and text.count(text[-1]) % 2:
        text = f"{text[:-1]} ′"  # five feet, where two would be quotes  # noqa: RUF001
    if "[" in text or "]" in text:
        text = _INTERVAL.sub(lambda interval: interval[0].translate(_CLOSED), text)
    raw = tuple(
        _SPELT[group](match[0]) if group in _SPELT else match[0]
        for match in _TOKEN.finditer(text.strip())
        if (group := match.lastgroup) != "blank"
    )
    return Text(raw=raw, keys=tuple(_keys_of(raw)))


def _keys_of(raw: Sequence[str]) -> Iterator[str]:
    before = ""
    for token in raw:
        # 20 G is a needle, and 20 g a weight.
        is_unit = len(token) == 1 and token.isupper() and before[-1:].isdigit()
        yield token if is_unit else _KEYS.get(token) or token.casefold()
        before = token


def _from_json(held: str) -> str | None:
    """Return the answer that an object states, and the text of an option beside its letter."""
    try:
        pairs = json.loads(held, object_pairs_hook=list)
    except ValueError:
        return None
    keyed = [(re.fullmatch(terms()["json_keys"], key), str(value)) for key, value in pairs]
    said = [value for key, value in keyed if key and key.lastgroup]
    is_one = sum(bool(key and key["answer"]) for key, _ in keyed) == 1
    return ". ".join(said) if is_one and all(key for key, _ in keyed) else None


def _from_latex(command: re.Match[str]) -> str:
    top, bottom, name = command.groups()
    if top:
        return f" {top}{FRACTION}{bottom} "
    signs = dict(pair.split("=", 1) for pair in terms_of("latex"))
    is_dropped = name == " " or name in terms_of("typeset")
    return " " if is_dropped else signs.get(name, command[0])


def words_of(text: Text) -> tuple[str, ...]:
    """Return the tokens that carry meaning, without an article in front."""
    keys = text.keys[1:] if starts_with_article(text) else text.keys
    return tuple(key for key in keys if key not in SKIPPED)


@lru_cache(maxsize=256)
def words(text: str) -> tuple[str, ...]:
    """Return a text as the words that are compared.

    >>> words("The **right**  kidney.") == words("right kidney")
    True
    >>> words("HER2-") == words("HER2+")
    False
    """
    return words_of(read(text))


def starts_with_article(text: Text, at: int = 0) -> bool:
    """Tell whether an article stands here: `A fracture`, not `A, B`, `A positive` or `A cells`."""
    if len(text) <= at + 1 or text.keys[at] not in ARTICLES:
        return False
    after = text.keys[at + 1]
    if len(after) == 1 or after in SOFT or after in {"and", "or"}:
        return False
    is_plural = after[-1] == "s" and after[-2] not in "saiuo"
    return text.keys[at] == "an" or not (is_plural or after in terms_of("lettered"))


def marked_words_of(text: Text) -> tuple[str, ...]:
    """Return the words of a text, and beside a negation the marks that say how far it reaches.

    "No, fracture" is not "no fracture".
    """
    if terms_of("negations").isdisjoint(text.keys):
        return words_of(text)
    kept: list[str] = []
    for at in range(int(starts_with_article(text)), len(text)):
        key = text.keys[at]
        if key not in SKIPPED:
            kept.append(key)
        elif kept and kept[-1] not in SOFT and key != "the":
            is_end = key in {"!", ";"} or text.ends_sentence(at)
            kept += ["."] if is_end else [] if key == "." else [key]
    return tuple(kept[:-1] if kept and kept[-1] in SOFT else kept)


def normalise(text: str) -> str:
    """Return the one spelling of a text that all its spellings share.

    >>> normalise("The answer: Crohn’s disease")
    'answer crohns disease'
    """
    return " ".join(marked_words_of(read(text)))


Vocabulary = Mapping[tuple[str, ...], str]
"""Each phrase, as words, and the value it means."""


def vocabulary(values: Mapping[str, Sequence[str]]) -> Vocabulary:
    """Return the phrases of some values, each with what it means."""
    return {words(phrase): value for value, phrases in values.items() for phrase in phrases}


@cache
def vocabularies() -> Mapping[str, Vocabulary]:
    """Return the values that exclude each other, by the name that a task gives to a fact."""
    return {name: vocabulary(values) for name, values in terms()["vocabularies"].items()}
