"""No order of messages, and no garbage, makes the tracker raise."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sealtape.schemas.facts import COMMAND, RESULT
from tests.capture.postgres.codec import pg_script as pg
from tests.capture.postgres.codec.pg_script import (
    BOUND,
    CLOSED,
    COPY_DONE,
    COPY_IN,
    COPY_OUT,
    EMPTY,
    GREETING,
    NO_DATA,
    PARSED,
    SUSPENDED,
    SYNC,
    facts,
    ready,
    row,
    tag,
)
from tests.capture.postgres.codec.test_tracker import HELLO, RUN, SELECT, extended

MESSAGES = st.sampled_from(
    [pg.query("select 1"), pg.query("deallocate all"), extended(name="s", portal="p"), SYNC, RUN,
     pg.parse("s", SELECT), pg.bind("p", "s"), pg.execute("p"), pg.close(b"S", "s"), COPY_DONE,
     pg.close(b"P", "p"), pg.describe(b"S", "s"), pg.describe(b"P"), pg.function(1), pg.FLUSH,
     pg.copy_data(b"x"), pg.copy_fail("x"), pg.TERMINATE, b"Q", b"\0", pg.m(b"D", b""),
     pg.m(b"C", b"S"), pg.m(b"F", b"")]
)  # fmt: skip
REPLIES = st.sampled_from(
    [GREETING, tag("SELECT 1"), ready(), ready(b"T"), ready(b"E"), PARSED, BOUND, CLOSED, NO_DATA,
     row(b"1"), pg.error(), pg.error(severity="FATAL"), pg.notice(), COPY_IN, COPY_OUT, SUSPENDED,
     EMPTY, pg.columns(("a", 23, 0)), pg.parameter_types(23), pg.setting("client_encoding", "SJIS"),
     b"Z", b"\0", pg.m(b"E"), pg.m(b"C"), pg.m(b"Z"), pg.m(b"T"), pg.m(b"t"), pg.m(b"W")]
)  # fmt: skip


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(st.tuples(st.just("c"), MESSAGES), st.tuples(st.just("s"), REPLIES)), max_size=40
    )
)
def test_no_order_of_messages_raises_and_every_result_has_its_command(script):
    found = facts(script, parameters=True)
    kinds = {fact.n: fact.kind for fact in found}
    for fact in found:
        if fact.kind == RESULT and fact.ref >= 0:
            assert kinds[fact.ref] == COMMAND


@given(st.lists(st.tuples(st.sampled_from("cs"), st.binary(max_size=60)), max_size=10))
def test_garbage_never_raises(script):
    facts([HELLO, *script])
