import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sealtape.indexer import tokens

TABLE = {
    "": (),
    "-- ;": (),
    "SELECT * FROM public.order_items": ("select", "from", "public", "order", "items"),
    "anna@example.com": ("anna", "example", "com"),
    "a=1.5e-3": ("a", "1", "5e", "3"),
    "'O''Brien'": ("o", "brien"),
    "ZÜRICH caf\u00e9 cafe\u0301": ("zürich", "café", "café"),
    "\uff33elect \u2460": ("select", "1"),
    "заказы.клиент": ("заказы", "клиент"),
    "$1::uuid": ("1", "uuid"),
    "tab\tnew\nline\x00nul": ("tab", "new", "line", "nul"),
    "x" * 200: ("x" * 128,),
}


@pytest.mark.parametrize("text", TABLE)
def test_table(text: str) -> None:
    assert tokens.words(text) == TABLE[text]


@given(st.text())
@example("İΑΣ")
@example("ᾳ\u0345 ǰ")
def test_folding_again_changes_nothing(text: str) -> None:
    folded = tokens.fold(text)
    assert tokens.fold(folded) == folded


@given(st.text())
@example("İx")
def test_words_of_words_are_the_words(text: str) -> None:
    split = tokens.words(text)
    assert tokens.words(" ".join(split)) == split
    assert tokens.words('"'.join(split)) == split
    assert all(0 < len(word) <= tokens.MAX_WORD for word in split)


@pytest.mark.parametrize(
    ("text", "answer"),
    [("ord", True), ("public.", False), ("", False), ("a_", False), ("é", True), ("a*", False)],
)
def test_ends_in_word(text: str, answer: bool) -> None:
    assert tokens.ends_in_word(text) is answer
