import asyncio
import json

from sealtape.indexer.cli.main import main
from tests.factories.deployments import make_site, seal


async def sealed_site(folder):
    site = make_site(folder)
    await seal(site, [site.session(), site.session()])
    return site


def run(site, *words):
    return main(["ledger", "rebuild", "-c", str(site.config), *words])


async def _site_with_a_new_ledger(tmp_path):
    site = await sealed_site(tmp_path / "site")
    text = site.config.read_text()
    site.config.write_text(text.replace("[stores]\n", '[stores]\nledger = "sqlite:again.db"\n'))
    return site


def made(tmp_path):
    return asyncio.run(_site_with_a_new_ledger(tmp_path))


def test_it_says_what_came_back(tmp_path, capsys):
    site = made(tmp_path)
    assert run(site) == 0
    out = capsys.readouterr().out
    assert "rebuilt 1 segments with 18 frames in 1 shards" in out
    assert "ingest reads on at" in out
    assert main(["verify", "--all", "-c", str(site.config)]) == 0


def test_programs_get_one_object(tmp_path, capsys):
    site = made(tmp_path)
    assert run(site, "--json", "--no-bus") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["segments"], found["frames"], found["left"]) == (1, 18, [])
    ((topic, partition, offset),) = found["positions"]
    assert (topic.startswith("frames"), partition, offset) == (True, 0, 0)


def test_a_ledger_in_use_is_refused(tmp_path, capsys):
    site = made(tmp_path)
    assert run(site) == 0
    assert run(site) == 74
    assert "not empty" in capsys.readouterr().err


def test_it_says_how_far_it_has_come(tmp_path, terminal):
    site = made(tmp_path)
    assert run(site) == 0
    assert "published frames 18 seg/v1/" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")
