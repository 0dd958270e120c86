"""Words: the one way text is cut for searching, the same in every index back end.

The rule has one line: compose and fold the text (Unicode NFKC, then lower case) and take the
longest runs of letters and digits (Unicode categories L and N). Everything else separates.

A name with separators inside, `public.order_items` or `anna@example.com`, is therefore several
words in a row, and a query term with separators inside is a phrase: `order_items` finds
`public.order_items`, and so does `items`, without a second, overlapping kind of word.

No back end cuts by itself: FTS5 and OpenSearch are given the words, joined by spaces, and cut at
spaces alone. So what is found does not depend on anybody's analyzer, nor on its Unicode version.

A run longer than `MAX_WORD` characters (a base64 blob) counts with its first `MAX_WORD`.
"""

from __future__ import annotations

import re
import unicodedata

MAX_WORD = 128
"""Characters of a word that count."""

VERSION = 1
"""Changes when the rule does: an index that was built by another version has to be rebuilt."""

_RUN = re.compile(r"[^\W_]+")


def fold(text: str) -> str:
    """Return `text` as it is compared: NFKC, lower case. Folding twice changes nothing."""
    folded = unicodedata.normalize("NFKC", text).lower()
    if folded.isascii():
        return folded
    # Lower-casing may leave text that composes once more (capital I with a dot above).
    return unicodedata.normalize("NFKC", folded)


def words(text: str) -> tuple[str, ...]:
    """Return the words of `text`, folded, in order."""
    return tuple(run[:MAX_WORD] for run in _RUN.findall(fold(text)))


def ends_in_word(text: str) -> bool:
    """Tell whether the last character belongs to a word, so that a prefix may grow from it."""
    last = fold(text)[-1:]
    return _RUN.fullmatch(last) is not None
