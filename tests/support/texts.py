"""Texts for property tests: prose of many scripts, and the odd ones on which word and sentence rules turn."""

# ruff: noqa: RUF001 - look-alike characters are what is tested

from __future__ import annotations

import re

from hypothesis import strategies as st

PROSE = (
    "The", "cat", "sat", "on", "a", "mat", "Won't", "e-mail", "don’t", "U.S.A.", "3.14", "1,000", "snake_case", "café",
    "naïve", "№5", "Это", "слово", "και", "ΣΟΦΙΑ", "I.", "Mr.", "etc.",
)  # fmt: skip
OTHER_SCRIPTS = (
    "שלום", "צה\"ל", "א.ב", "ג'", "السلام", "عليكم", "٣٤", "हिन्दी", "日本語", "の",
    "テキスト", "変更。", "人々", "한국어", "한", "ภาษาไทย", "ครับ", "ខ្មែរ", "𝒳𝒴", "𠀀𠀁", "ﾊﾟ", "⺀", "々",
)  # fmt: skip
MARKS = (
    ".", "!", "?", "...", ". ", "? ", "! ", ", ", "; ", ": ", " - ", "—", "“", "”", "(", ")", '"', "'", "_", "__", "·",
    "。", "、", "！", "…", "/", "&", "#", "@", "$", "%", "¸",
)  # fmt: skip
SPACES = (" ", "  ", "\n", "\n\n", "\n\n\n", "\r\n", "\r", "\t", "\x0b", "\x85", "\xa0", "\u2009", "\u2028", "\u3000")
ODD = (
    "\u0301", "\u200d", "\u00ad", "\ufe0f", "\u200b", "\ufeff", "\u202f", "😀", "👍🏽", "👨‍👩‍👧", "🇫🇷", "🇩", "1️⃣",
    "⅓", "①", "Ⅷ", "ⓐ", "🅰", "©", "ﾞ", "᪨", "\u0600", "\u05f4",
)  # fmt: skip

# In runs that ICU splits by dictionary, an underscore or a joined emoji at the end takes the status from the words
# before it; nobody writes so, and the chunkers do not follow.
_SPLIT_BY_DICTIONARY = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\ua9e0-\ua9ff\uaa60-\uaadf\U00011700-\U0001174f]"
)
_TAKES_STATUS = re.compile("[_\u202f\u203f\u2040\u2054\ufe33\ufe34\ufe4d-\ufe4f\uff3f\u200d]")


def _joined(tokens: st.SearchStrategy[str], most: int) -> st.SearchStrategy[str]:
    return st.lists(tokens, max_size=most).map("".join)


def usual(text: str) -> bool:
    """Whether a text has none of the one oddity that the chunkers do not follow."""
    return not (_SPLIT_BY_DICTIONARY.search(text) and _TAKES_STATUS.search(text))


english = st.lists(st.tuples(st.sampled_from(PROSE), st.sampled_from([*MARKS, *SPACES, *" " * 40])), max_size=60).map(
    lambda pairs: "".join(word + mark for word, mark in pairs)
)
mixed = _joined(st.sampled_from([*PROSE, *OTHER_SCRIPTS, *MARKS, *SPACES, *SPACES, *ODD]), 40)
any_text = st.one_of(english, mixed, st.text(max_size=60)).filter(usual)
