import pytest

from sealtape.schemas.errors import FormatError
from sealtape.schemas.sealed import SEALED_TAG, SealedKey, associated_data
from sealtape.schemas.wraps import X25519

KEY = SealedKey("transit", X25519, "auditor-0123456789abcdef", "vault:v1:AbC/+9==")
LINE = f"{SEALED_TAG} transit {X25519} auditor-0123456789abcdef vault:v1:AbC/+9==\n"


def test_a_line_and_back():
    assert KEY.text() == LINE
    assert SealedKey.from_text(LINE) == KEY
    assert SealedKey.from_text(LINE.rstrip()) == KEY


def test_what_it_is_sealed_under_names_suite_and_id():
    assert (
        KEY.associated == b"sealtape/1 private-key x25519-sha256-aes256gcm auditor-0123456789abcdef"
    )
    assert KEY.associated == associated_data(KEY.suite, KEY.id)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        LINE + "\n",
        LINE + LINE,
        LINE.replace(" ", "  ", 1),
        LINE.replace(SEALED_TAG, "sealtape-sealed-key-2"),
        LINE.replace("transit", "rot13"),
        LINE.replace(X25519, "x448"),
        LINE.replace("auditor-0123456789abcdef", "auditor"),
        LINE.replace("auditor-0123456789abcdef", "auditor-0123456789ABCDEF"),
        LINE.replace("vault:v1:AbC/+9==", ""),
        LINE.replace("vault:v1:AbC/+9==", "a b"),
        LINE.replace("vault:v1:AbC/+9==", "é"),
        LINE.replace("vault:v1:AbC/+9==", "x" * 4097),
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(FormatError):
        SealedKey.from_text(text)
