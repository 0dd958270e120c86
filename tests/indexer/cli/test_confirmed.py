"""The answer of a comparison with the record."""

from sealtape.indexer.cli.confirmed import DIFFERS, Confirmed


def test_only_another_word_of_the_record_is_a_difference():
    assert Confirmed(verified=False, reason=f"{DIFFERS}: text").differs
    assert not Confirmed(verified=False, reason="it is not sealed yet").differs
    assert not Confirmed(verified=True).differs
