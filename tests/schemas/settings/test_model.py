"""The schema itself: every field can be parsed and has its documentation."""

from dataclasses import fields, is_dataclass

from sealtape.schemas.settings import model
from sealtape.schemas.settings.loader import TABLES


def test_every_field_is_a_setting_or_a_table():
    kinds = [
        kind for kind in vars(model).values() if is_dataclass(kind) and kind is not model.Settings
    ]
    assert len(kinds) > 8
    for kind in kinds:
        if kind.__name__ == "Secret":
            continue
        for item in fields(kind):
            assert (kind, item.name) in TABLES or {"parse", "doc"} <= set(item.metadata), (
                kind,
                item.name,
            )
