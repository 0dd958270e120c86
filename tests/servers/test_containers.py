import pytest

from tests.servers import cache, containers, registry


@pytest.mark.parametrize(
    ("part", "relative", "there"),
    [
        ("kafka", "lib", "/opt/kafka/libs"),
        ("postgres", "bin/initdb", "/usr/lib/postgresql/18/bin/initdb"),
        ("toxiproxy", "toxiproxy-server", "/toxiproxy"),
        ("opensearch", "bin/opensearch", "/usr/share/opensearch/bin/opensearch"),
        ("opensearch-secure", "plugins/opensearch-security/config",
         "/usr/share/opensearch/config/opensearch-security"),
    ],
)  # fmt: skip
def test_a_file_of_the_cache_has_its_place_in_the_image(part, relative, there):
    assert containers.inside(part, relative) == there


def test_a_place_that_is_not_known_is_an_error():
    with pytest.raises(KeyError, match="etc of kafka"):
        containers.inside("kafka", "etc")


def test_every_server_of_the_whole_set_has_an_image_of_its_version():
    for name in registry.WHOLE_SET:
        for part in registry.server(name).PARTS:
            version = cache.VERSIONS[part]
            tag = containers.IMAGES[part].name.rpartition(":")[2].removeprefix("v")
            assert version == tag or version.startswith(tag + ".")


def test_a_server_without_an_image_says_so():
    assert "no official image for promtool" in containers.lack("promtool")


def test_an_engine_that_does_not_answer_is_told(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    lack = containers.lack("kafka")
    assert "no container engine answers" in lack or "testcontainers is not installed" in lack


def test_an_owner_sees_the_way_to_the_engine_and_no_secrets(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-person's-own")
    environment = containers.owner_environment()
    assert environment["DOCKER_HOST"] == "tcp://127.0.0.1:1"
    assert "AWS_SECRET_ACCESS_KEY" not in environment
