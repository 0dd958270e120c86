"""Who may edit and delete any document of the OpenSearch that is searched."""

import json
from types import SimpleNamespace

import pytest

from sealtape.indexer.index import prepare_index
from sealtape.indexer.node import rebuild_index
from tests.factories.deployments import make_site, seal
from tests.stories.deployed import STATEMENTS, found, judged


@pytest.fixture
async def searched(tmp_path, opensearch_server):
    """A deployment that is searched there, and the prefix of its indices."""
    prefix = opensearch_server.prefix()
    site = make_site(tmp_path / "searched")
    url = opensearch_server.index_url(prefix)
    site.config.write_text(f'{site.config.read_text()}index = "{url}"\n')
    await prepare_index(url, site.folder)
    await seal(site, [site.session(commands=2, statements=STATEMENTS)])
    await rebuild_index(site.settings)
    yield SimpleNamespace(site=site, prefix=prefix)
    opensearch_server.forget(prefix)


def edit(server, name, source):
    text = json.dumps(source).replace("secrets", "weather")
    server.ask("PUT", f"{name}?refresh=true", text.encode())


def hide(server, name, _):
    server.ask("DELETE", f"{name}?refresh=true")


@pytest.mark.parametrize("harm", [edit, hide])
async def test_he_edits_and_hides_and_the_recordings_say_what_was(
    searched, opensearch_server, harm
):
    """What search shows is not verified; the recordings are, and make the index anew."""
    site = searched.site
    assert await found(site) == STATEMENTS
    answer = opensearch_server.ask("GET", f"/{searched.prefix}-*/_search?size=1000")
    hits = [hit for hit in answer["hits"]["hits"] if "secrets" in json.dumps(hit["_source"])]
    assert hits
    for hit in hits:
        harm(opensearch_server, f"/{hit['_index']}/_doc/{hit['_id']}", hit["_source"])
    assert await found(site) != STATEMENTS
    report = await judged(site, key=site.indexer)
    assert report.verdict == "verified"
    await rebuild_index(site.settings)
    assert await found(site) == STATEMENTS
