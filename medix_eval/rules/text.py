r"""Read text as tokens, so that two spellings of one thing are equal and two things never are.

Case, quotes, markdown, `the`, most punctuation and hyphens inside words carry no meaning here.
What changes a value stays a token: signs, `<`, `+`, `/`, `%`, decimals, exponents, a `-` after
`HER2`, the `x` of `28x27`, the colon of `3:1`, a question mark.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache


def listed(spaced: str) -> tuple[str, ...]:
    """Return the words of a list that is written with spaces."""
    return tuple(spaced.split())


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
_CASED = frozenset({"Mg", "mM", "nM", "uM", "μM"})
"""Magnesium and molar, which are not milligram and millimetre."""
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻"

# An exponent must not melt into its base: 10³ is not 103, and 2½ is not 21/2.
_SPELLINGS = str.maketrans(
    {sign: f"^{plain}" for sign, plain in zip(_SUPERSCRIPTS, "0123456789+-", strict=True)}
    | {fraction: f" {fraction}" for fraction in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
    | dict.fromkeys("‐‑‒–−﹣－", "-")  # noqa: RUF001
    | dict.fromkeys("—―", " -- ")
    | dict.fromkeys("‘’‚‛′´", "'")  # noqa: RUF001
    | dict.fromkeys("“”„‟″«»", '"')
    | {"。": ". ", "、": ",", "「": '"', "」": '"', "【": " ", "】": " "}
    | dict.fromkeys("→⇒➜", ":")
)

# Accents on letters in words; a letter that stands alone is another one with an accent. Strokes
# through letters stay, too: struck-out text is not what it spells.
_MARK = "[\u0300-\u0304\u0306-\u030c\u0327\u0328]"
_ACCENTS = re.compile(rf"(?<![^\W_])([^\W_]{_MARK}+)(?![^\W_])|{_MARK}")
_BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")
"""What is put into a box is the answer; it is a clause of its own."""
_SCRIPTS = re.compile(
    "(?<=[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])(?=[a-zA-Z\uff21-\uff5a])"
    "|(?<=[a-zA-Z\uff21-\uff5a])(?=[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])"
)
"""Between Chinese, Japanese or Korean and a Latin letter, which are no one word."""
_LATEX = re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf)\b")
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
    | (?P<dash>  -{2,} | (?<!\w)-(?=\s+[^\s\d]) )                  # B - aspirin
    | (?P<blank> [\s"'*`#_$] | (?<=\w)-(?=\w) )
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
        return self.keys[at] in _SENTENCE_ENDS or (
            self.keys[at] == "." and self.starts_sentence(at + 1)
        )

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
    "and": lambda _: "and",
}
"""How the tokens of a group are spelt; those of other groups stay as they are."""


def plain(text: str) -> str:
    """Return a text in the characters that are compared: without accents, with one minus."""
    text = unicodedata.normalize("NFKD", text.translate(_SPELLINGS))
    # Some characters, such as a lowered minus, are only now what has another spelling.
    return unicodedata.normalize("NFC", _ACCENTS.sub(r"\1", text.translate(_SPELLINGS)))


# References, options and short answers come again and again.
@lru_cache(maxsize=256)
def read(text: str) -> Text:
    """Split a text into tokens, in time linear in its length."""
    if not text.isascii():
        text = plain(_SCRIPTS.sub(" ", INVISIBLE.sub("", text)))
    if "\\" in text:
        text = _LATEX.sub(" ", _BOXED.sub(r"; answer: \1 ", text))
    raw = tuple(
        _SPELT[group](match[0]) if group in _SPELT else match[0]
        for match in _TOKEN.finditer(text.strip())
        if (group := match.lastgroup) != "blank"
    )
    return Text(raw=raw, keys=tuple(map(_key, raw)))


def _key(token: str) -> str:
    return token if token in _CASED else token.casefold()


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
    """Tell whether an `a` or `an` with a word after it stands here: `A fracture`, not `A, B`."""
    return (
        text.keys[at : at + 1] != ()
        and text.keys[at] in ARTICLES
        and len(text) > at + 1
        and len(text.keys[at + 1]) > 1
        and text.keys[at + 1] not in SOFT
        and text.keys[at + 1] not in {"and", "or"}
    )


def normalise(text: str) -> str:
    """Return the one spelling of a text that all its spellings share.

    >>> normalise("The answer: Crohn’s disease")
    'answer crohns disease'
    """
    return " ".join(words(text))


_SIDE = {"left": ("left",), "right": ("right",), "both": ("both", "bilateral")}
_SIZE = {"small": ("small",), "large": ("large", "big")}
_MODALITY = {
    "x-ray": ("x-ray", "xray", "radiograph", "plain film"),
    "ct": ("ct", "computed tomography"),
    "mri": ("mri", "magnetic resonance imaging", "magnetic resonance"),
    "ultrasound": ("ultrasound", "ultrasonography", "sonography"),
    "microscopy": ("microscopy", "microscopic"),
}
Vocabulary = Mapping[tuple[str, ...], str]
"""Each phrase, as words, and the value it means."""


def _vocabulary(values: Mapping[str, tuple[str, ...]]) -> Vocabulary:
    return {words(phrase): value for value, phrases in values.items() for phrase in phrases}


VOCABULARIES: dict[str, Vocabulary] = {
    "side": _vocabulary(_SIDE),
    "size": _vocabulary(_SIZE),
    "modality": _vocabulary(_MODALITY),
}
"""By the name that a task gives to a fact."""
ORGANS = _vocabulary(
    {
        "brain": ("brain", "cerebrum", "cerebral"),
        "heart": ("heart", "cardiac"),
        "lung": ("lung", "lungs", "pulmonary"),
        "liver": ("liver", "hepatic"),
        "spleen": ("spleen", "splenic"),
        "pancreas": ("pancreas", "pancreatic"),
        "kidney": ("kidney", "kidneys", "renal"),
        "urinary bladder": ("urinary bladder", "bladder"),
        "gallbladder": ("gallbladder", "gall bladder"),
        "stomach": ("stomach", "gastric"),
        "colon": ("colon", "colonic"),
        "prostate": ("prostate", "prostatic"),
        "uterus": ("uterus", "uterine"),
        "ovary": ("ovary", "ovaries", "ovarian"),
        "breast": ("breast", "breasts"),
        "thyroid": ("thyroid", "thyroid gland"),
        "eye": ("eye", "eyes"),
    }
)
"""Only for naming mistakes: an organ may be part of another answer, so no rule decides by these."""
