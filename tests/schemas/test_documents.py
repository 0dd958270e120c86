"""Index documents: vectors, round trips, ids."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.schemas import documents
from sealtape.schemas.documents import CommandDocument, SessionDocument
from sealtape.schemas.errors import FormatError

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "documents.json").read_text(encoding="utf-8")
)
KINDS = {"session": SessionDocument, "command": CommandDocument}
SESSION = SessionDocument(
    bytes(16), "main", "standard", "ann", "shop", "postgres", "node-1", started_ns=5, revision=0
)
COMMAND = CommandDocument(
    bytes(16), 0, 1, 3, "main", "standard", "ann", "shop", "postgres", 5, 0, 0, 39
)


@pytest.mark.parametrize("case", VECTORS["documents"], ids=lambda case: case["name"])
def test_vectors(case):
    document = KINDS[case["type"]].from_json(case["json"].encode())
    assert document.to_json().decode() == case["json"]
    assert document.id == case["id"]


counts = st.integers(0, 2**63 - 1)
times = st.integers(-(2**63), 2**63 - 1)
words = st.text(alphabet=st.characters(codec="utf-8"), max_size=20)
lists = st.lists(words, max_size=3).map(tuple)
shared = {
    "session": st.binary(min_size=16, max_size=16),
    "tenant": st.just("main"),
    "retention": st.just("standard"),
    "user": words,
    "groups": lists,
    "agent": words,
    "run": words,
    "target": words,
    "protocol": words,
    "source": words,
}


@given(
    st.builds(
        SessionDocument,
        **shared,
        on_behalf_of=lists,
        database=words,
        client=words,
        node=words,
        started_ns=times,
        ended_ns=st.none() | times,
        state=st.sampled_from(documents.SESSION_STATES),
        close_reason=words,
        frames=counts,
        bytes_client=counts,
        bytes_server=counts,
        commands=counts,
        errors=counts,
        effects=lists,
        revision=counts,
    )
)
def test_a_session_document_comes_back(document):
    assert SessionDocument.from_json(document.to_json()) == document
    assert document.to_json() == document._checked_json()


@given(
    st.builds(
        CommandDocument,
        **shared,
        epoch=st.integers(0, 2**32 - 1),
        n=counts,
        seq=counts,
        time_ns=times,
        leg=st.integers(-1, 3),
        offset=counts,
        length=counts,
        version=st.integers(0, 1),
        status=st.sampled_from(documents.COMMAND_STATUSES),
        text=words,
        fingerprint=words,
        effect=words,
        tables=lists,
        rows=st.integers(-1, 2**63 - 1),
        bytes_out=counts,
        duration_ns=st.none() | counts,
        error=words,
        message=words,
    )
)
def test_a_command_document_comes_back(document):
    assert CommandDocument.from_json(document.to_json()) == document
    assert document.to_json() == document._checked_json()
    assert documents.parse_command_id(document.id) == (document.session, document.epoch, document.n)


@pytest.mark.parametrize(
    ("document", "changes"),
    [
        (SESSION, {"state": "open"}),
        (SESSION, {"tenant": "Main"}),
        (SESSION, {"retention": ""}),
        (SESSION, {"session": bytes(15)}),
        (SESSION, {"frames": -1}),
        (SESSION, {"user": "u" * 1025}),
        (COMMAND, {"status": "done"}),
        (COMMAND, {"leg": 4}),
        (COMMAND, {"rows": -2}),
        (COMMAND, {"epoch": 2**32}),
        (COMMAND, {"text": "x" * 65_537}),
        (COMMAND, {"duration_ns": -1}),
        (COMMAND, {"text": "\ud800"}),
        (SESSION, {"groups": ("\udfff",)}),
        (COMMAND, {"message": "m" * 4097}),
        (SESSION, {"groups": ("",) * 1025}),
        (COMMAND, {"tables": ("",) * 1025}),
    ],
)
def test_a_document_against_the_rules_is_not_written(document, changes):
    with pytest.raises(FormatError):
        dataclasses.replace(document, **changes).to_json()


ODD = "".join(map(chr, range(0x180))) + "\u2028\u2029\ufeff\uffff\U0001f600"


@pytest.mark.parametrize(
    "document",
    [
        dataclasses.replace(SESSION, user=ODD[:100], client=ODD[100:200], ended_ns=7),
        dataclasses.replace(SESSION, user="u" * 1024, groups=(ODD[:200], ""), started_ns=-5),
        dataclasses.replace(COMMAND, text=ODD, message=ODD, tables=(ODD[:150], "b")),
        dataclasses.replace(COMMAND, text="\U0001f600" * 16_384, message="m" * 4096),
        dataclasses.replace(COMMAND, error="\U0001f600" * 256, duration_ns=2**63 - 1),
    ],
)
def test_both_ways_of_writing_give_the_same_bytes(document):
    assert document.to_json() == document._checked_json()
    assert type(document).from_json(document.to_json()) == document


def test_a_document_of_another_type_is_refused():
    with pytest.raises(FormatError, match="must be one of session"):
        SessionDocument.from_json(COMMAND.to_json())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0" * 32,
        "0" * 32 + ":0",
        "0" * 31 + ":0:0",
        "0" * 32 + ":00:0",
        "0" * 32 + ":0:-1",
        "0" * 32 + f":{2**32}:0",
        "0" * 32 + f":0:{2**63}",
        "A" * 32 + ":0:0",
        "0" * 32 + ":0:0\n",
    ],
)
def test_other_texts_are_no_command_ids(text):
    with pytest.raises(FormatError, match="not the id"):
        documents.parse_command_id(text)
