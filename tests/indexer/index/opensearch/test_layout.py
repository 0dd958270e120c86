import json

import pytest

from sealtape.indexer.index.opensearch.layout import Layout, Place
from sealtape.schemas.errors import FormatError, SettingsError

DAY = 86_400 * 10**9


def test_names_follow_from_tenant_class_and_start():
    layout = Layout("sealtape")
    place = Place("acme-1", "long_term", 20_000 * DAY + 5)
    assert layout.sessions_index(place) == "sealtape-sessions-acme-1.long_term.2024.10"
    assert layout.commands_index(place) == "sealtape-commands-acme-1.long_term.2024.10.04"
    assert layout.place_of(layout.sessions_index(place), place.start_ns) == place


@pytest.mark.parametrize("start_ns", [0, 1, DAY - 1, (1 << 63) - 1])
def test_every_start_has_a_place(start_ns):
    layout, place = Layout("t"), Place("main", "standard", start_ns)
    assert layout.place_of(layout.sessions_index(place), start_ns) == place


def test_no_two_make_the_same_name():
    layout = Layout("t")
    names = {
        layout.sessions_index(Place(tenant, retention, 0))
        for tenant, retention in [("a-b", "c"), ("a", "b-c"), ("a", "b"), ("a-b-c", "d")]
    }
    assert len(names) == 4


@pytest.mark.parametrize("other", ["t2-sessions-a.b.1970.01", "t-commands-a.b.1970.01.01", ".kib"])
def test_an_index_of_another_making_has_no_place(other):
    assert Layout("t").place_of(other, 0) is None


@pytest.mark.parametrize("prefix", ["", "A", "-a", "a-b", "a.b", "a" * 41, "ä", "a*", "_a"])
def test_a_prefix_cannot_clash(prefix):
    with pytest.raises(SettingsError):
        Layout(prefix)


@pytest.mark.parametrize("name", ["", "a.b", "A", "a*", "a,b"])
def test_a_place_is_part_of_a_name(name):
    for tenant, retention in ((name, "standard"), ("main", name)):
        with pytest.raises(FormatError):
            Place(tenant, retention, 0)


def test_templates_are_composed_of_what_is_there():
    layout = Layout("t", shards=3, replicas=2)
    components = layout.component_templates()
    used = set()
    for name, body in layout.index_templates().items():
        used |= set(body["composed_of"])
        assert name in body["composed_of"]
        assert body["_meta"] == components[name]["_meta"]
    assert used == set(components)
    settings = components["t-settings"]["template"]["settings"]["index"]
    assert (settings["number_of_shards"], settings["number_of_replicas"]) == ("3", "2")


def test_mappings_are_strict():
    for name, body in Layout("t").component_templates().items():
        if name != "t-settings":
            assert body["template"]["mappings"]["dynamic"] == "strict"


async def test_the_server_keeps_them_as_they_are(prepared, opensearch_server):
    layout = prepared.layout
    there = opensearch_server.ask("GET", f"/_component_template/{layout.prefix}-*")
    found = {one["name"]: one["component_template"] for one in there["component_templates"]}
    assert found == json.loads(json.dumps(layout.component_templates()))
    there = opensearch_server.ask("GET", f"/_index_template/{layout.prefix}-*")
    found = {one["name"]: one["index_template"] for one in there["index_templates"]}
    for name, body in layout.index_templates().items():
        assert found[name]["index_patterns"] == body["index_patterns"]
        assert found[name]["composed_of"] == body["composed_of"]
        assert found[name]["_meta"] == body["_meta"]
