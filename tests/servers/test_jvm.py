import pytest

from tests.servers import jvm


@pytest.fixture
def java(tmp_path):
    """Makes a home with a `java` that says it is of a version."""

    def make(text):
        home = tmp_path / text
        (home / "bin").mkdir(parents=True)
        program = home / "bin/java"
        program.write_text(f"#!/bin/sh\necho 'openjdk version \"{text}\"' >&2\n")
        program.chmod(0o755)
        return home

    return make


def test_the_oldest_that_fits_is_taken(java, monkeypatch):
    homes = [java(text) for text in ("25.0.1", "1.8.0_402", "17.0.2", "21")]
    monkeypatch.setenv("SEALTAPE_JAVA", ":".join(map(str, homes)))
    assert jvm.find(17) == homes[2] / "bin/java"
    assert jvm.find(18) == homes[3] / "bin/java"
    assert jvm.find(8) == homes[1] / "bin/java"
    assert jvm.find(22) == homes[0] / "bin/java"


def test_too_new_is_no_better_than_too_old(java, monkeypatch):
    monkeypatch.setenv("SEALTAPE_JAVA", str(java("25.0.1")))
    with pytest.raises(jvm.NoJavaError, match=r"Java 11 or newer, older than 24.*SEALTAPE_JAVA"):
        jvm.find(11, 24)


def test_a_program_may_be_named_instead_of_its_home(java, monkeypatch):
    program = java("21.0.4") / "bin/java"
    monkeypatch.setenv("SEALTAPE_JAVA", str(program))
    assert jvm.find(21) == program


def test_java_home_is_looked_at(java, monkeypatch):
    monkeypatch.delenv("SEALTAPE_JAVA", raising=False)
    home = java("99.0.1")
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert jvm.find(99) == home / "bin/java"


def test_what_to_do_without_one(monkeypatch, tmp_path):
    monkeypatch.delenv("SEALTAPE_JAVA", raising=False)
    with pytest.raises(jvm.NoJavaError, match="install one or name it with SEALTAPE_JAVA"):
        jvm.find(998)


def test_servers_of_tests_are_compiled_quickly_and_others_well(monkeypatch):
    assert jvm.compilers() == ["-XX:TieredStopAtLevel=1"]
    monkeypatch.setattr(jvm, "brief", False)
    assert jvm.compilers() == []
