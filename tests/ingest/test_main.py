import asyncio
import signal
import sys

import pytest

from sealtape.capture.bus import open_bus
from sealtape.ingest.__main__ import build_parser, main
from sealtape.ingest.ledger import open_ledger
from sealtape.schemas.trust import format_trust
from tests.factories.sessions import build_session, node_signer


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for word in ("bus", "keyring", "vault", "ledger", "SIGTERM", "exit codes", "--config"):
        assert word in text


def test_the_config_may_be_named_by_the_environment(monkeypatch):
    monkeypatch.setenv("SEALTAPE_CONFIG", "elsewhere.toml")
    assert build_parser().parse_args([]).config == "elsewhere.toml"
    monkeypatch.delenv("SEALTAPE_CONFIG")
    assert build_parser().parse_args([]).config == "sealtape.toml"


@pytest.mark.parametrize(
    ("text", "code", "word"),
    [
        (None, 64, "cannot be read"),
        ("[stores]\nbuss = 'x'\n", 64, "bus"),
        ("", 64, "trust.toml"),
    ],
)
def test_wrong_settings_end_it_with_a_message(tmp_path, capsys, text, code, word):
    config = tmp_path / "sealtape.toml"
    if text is not None:
        config.write_text(text)
    assert main(["-c", str(config)]) == code
    assert word in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_process_seals_until_it_is_told_to_stop(tmp_path, number):
    (tmp_path / "sealtape.toml").write_text("[ingest]\nsegment_s = '1s'\n")
    (tmp_path / "trust.toml").write_text(format_trust([node_signer().verifier.vkey]))
    bus = open_bus("dir:bus?partitions=1", tmp_path)
    built = build_session()
    await bus.append(0, built.encoded())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sealtape.ingest", "-c", str(tmp_path / "sealtape.toml")
    )
    while not (tmp_path / "ledger.db").exists():
        await asyncio.sleep(0.05)
    ledger = await open_ledger("sqlite:ledger.db", tmp_path)
    while (row := await ledger.session(built.session)) is None or row.state != "sealed":
        await asyncio.sleep(0.05)
    process.send_signal(number)
    assert await asyncio.wait_for(process.wait(), 20) == 0
    await ledger.close()
    await bus.close()
