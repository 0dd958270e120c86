"""`sealtape index setup`: what it loads, for both kinds of index."""

import json
import re

import pytest

ASKED = (["sessions"], ["search", "orders"], ["search", "effect:read"], ["sessions", "orders"])


def answers(run, deployment, words):
    answer = run("-c", deployment.config, *words, "--json")
    assert answer.code == 0
    return answer.out


def point(deployment, url):
    """Have the settings name this index."""
    settings = deployment.folder / "sealtape.toml"
    text = re.sub(r'(?m)^index = "\w+:.*"\n', "", settings.read_text())
    text = text if "[stores]" in text else f"{text}\n[stores]\n"
    settings.write_text(text.replace("[stores]\n", f'[stores]\nindex = "{url}"\n'))


@pytest.fixture
def on_opensearch(copied, opensearch_server):
    """The deployment with its index in OpenSearch, of which nothing is there yet."""
    prefix = opensearch_server.prefix()
    point(copied, opensearch_server.index_url(prefix))
    yield copied
    opensearch_server.forget(prefix)


def test_an_embedded_index_is_made(run, copied):
    for path in copied.folder.glob("index.db*"):
        path.unlink()
    assert run("-c", copied.config, "index", "setup").out == "made index.db\n"
    assert run("-c", copied.config, "index", "setup").out == "nothing to do\n"
    answer = run("-c", copied.config, "index", "setup", "--dashboards", "http://h:1", "--json")
    assert answer.code == 64
    assert "not in OpenSearch" in answer.error["message"]


def test_what_was_loaded_is_said(run, on_opensearch):
    answer = run("-c", on_opensearch.config, "index", "setup", "--dashboards", "http://127.0.0.1:1")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0] == "loaded 5 component and 4 index templates"
    assert [line.partition(":")[0] for line in lines[1:]] == [
        "did not load roles",
        "did not load the backstop policies",
        "did not load dashboards",
    ]
    told = run("-c", on_opensearch.config, "index", "setup", "--json").out.splitlines()
    assert [json.loads(line)["done"] for line in told] == lines[:-1]


def test_an_index_in_opensearch_is_the_same_index(run, copied, on_opensearch):
    """The same deployment, indexed anew there: the commands find the same."""
    assert run("-c", on_opensearch.config, "search", "select").code == 74
    run("-c", on_opensearch.config, "index", "setup")
    assert run("-c", on_opensearch.config, "index", "rebuild", "--json").json["commands"] == 6
    found = [answers(run, on_opensearch, words) for words in ASKED]
    point(copied, "sqlite:index.db")
    assert found == [answers(run, copied, words) for words in ASKED]
    assert all(found)
