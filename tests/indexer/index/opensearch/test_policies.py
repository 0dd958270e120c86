from sealtape.indexer.index.opensearch.layout import Layout, Place
from sealtape.indexer.index.opensearch.policies import MARGIN_DAYS, policies

DAY_S = 86_400


def test_a_policy_deletes_long_after_the_term():
    found = policies(Layout("t"), {"standard": 400 * DAY_S, "short": 0.5 * DAY_S})
    assert list(found) == ["t-backstop-short", "t-backstop-standard"]
    policy = found["t-backstop-standard"]["policy"]
    kept, over = policy["states"]
    assert policy["default_state"] == kept["name"]
    (step,) = kept["transitions"]
    assert step == {"state_name": over["name"], "conditions": {"min_index_age": "461d"}}
    assert over == {"name": "over", "actions": [{"delete": {}}], "transitions": []}
    assert MARGIN_DAYS >= 30


def test_a_policy_is_for_indices_of_its_class_alone():
    layout = Layout("t")
    found = policies(layout, {"a": 1, "b-a": 1})
    (template,) = found["t-backstop-a"]["policy"]["ism_template"]
    for retention, wanted in (("a", True), ("b-a", False), ("ab", False)):
        place = Place("main", retention, 0)
        for name in (layout.sessions_index(place), layout.commands_index(place)):
            assert any(fits(pattern, name) for pattern in template["index_patterns"]) == wanted
    assert not any(fits(pattern, layout.state) for pattern in template["index_patterns"])


def fits(pattern, name):
    parts = pattern.split("*")
    return name.startswith(parts[0]) and all(part in name for part in parts)
