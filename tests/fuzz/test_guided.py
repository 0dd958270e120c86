"""The guided fuzzer finds what it should; the parts without atheris are tested everywhere."""

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fuzz import campaign, guided
from tests.fuzz.mutations import WORDS
from tests.fuzz.seeds import PARSERS, parsed

CHECKOUT = Path(__file__).resolve().parents[2]
LOG = """\
#3	INITED cov: 23 ft: 36 corp: 2/3920b exec/s: 0 rss: 112Mb
#2048	pulse  cov: 34 ft: 60 corp: 12/8580b lim: 4096 exec/s: 0 rss: 112Mb
"""
DONE = "stat::number_of_executed_units: 2666\n"
# In place of tests/fuzz/seeds.py: a parser that must not raise ValueError, and does.
BAD = """
import sys, types
from tests.fuzz import guided
def parse(data):
    if data[:1] == b"P":
        raise ValueError("a leak")
seeds = types.ModuleType("tests.fuzz.seeds")
seeds.PARSERS = {"bad": (parse, [b"x"])}
seeds.parsed = lambda parse, data: parse(data)
seeds.HANG_S, seeds.MEMORY = 1.0, 64 << 20
sys.modules["tests.fuzz.seeds"] = seeds
guided.main(["bad", "--runs", "100000", "--folder", sys.argv[1]])
"""
NEEDS_ATHERIS = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="`make fuzz` installs atheris"
)
NEEDS_PEAKS = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone sets a peak back")


def watch(parse, hang_s=1.0, memory=64 << 20):
    return guided.Watch(parse, parsed, hang_s, memory)


def spin(data):
    begun = time.thread_time()
    while time.thread_time() - begun < 0.1:
        pass


def refuse(data):
    raise ValueError("not a refusal")


def test_the_inputs_are_divided_among_all_parsers():
    shares = campaign.shares(10_000_019, PARSERS)
    assert list(shares) == list(PARSERS)
    assert sum(shares.values()) == 10_000_019
    assert abs(shares["note"] - 5 * shares["parquet"]) <= 5


def test_what_a_run_did_is_read_from_its_log(tmp_path):
    (tmp_path / "crash-1").touch()
    (tmp_path / "slow-unit-1").touch()
    assert campaign.outcome(LOG, tmp_path, 77) == (2048, 34, [tmp_path / "crash-1"], True)
    (tmp_path / "crash-1").unlink()
    assert campaign.outcome(LOG + DONE, tmp_path, 0) == (2666, 34, [], False)
    assert campaign.outcome("nothing", tmp_path, 1) == (0, 0, [], True)


def test_words_are_written_as_libfuzzer_reads_them():
    assert guided.dictionary([b'"\n', b"A"]) == '"\\x22\\x0a"\n"\\x41"\n'
    assert guided.dictionary(WORDS).isascii()


@NEEDS_PEAKS
def test_a_hang_is_a_finding():
    with pytest.raises(AssertionError, match=r"took 0\.1 s for 2 bytes"):
        watch(spin, hang_s=0.05)(b"12")


@NEEDS_PEAKS
def test_greed_is_a_finding_each_time():
    greedy = watch(lambda data: bytearray(b"x") * (256 << 20))
    for _ in range(2):
        with pytest.raises(AssertionError, match=r"took \d+ MiB for 0 bytes"):
            greedy(b"")


@NEEDS_PEAKS
def test_what_is_no_refusal_is_a_finding():
    with pytest.raises(ValueError, match="not a refusal"):
        watch(refuse)(b"")
    assert watch(PARSERS["size"][0])(b"12\n")
    assert not watch(PARSERS["size"][0])(b"012\n")


@NEEDS_PEAKS
def test_an_input_is_played_again(tmp_path, capsys):
    (tmp_path / "input").write_bytes(b"7\n")
    guided.main(["size", "--replay", str(tmp_path / "input")])
    assert capsys.readouterr().out == "size: taken\n"


def test_a_parser_that_does_not_exist_is_named(capsys):
    with pytest.raises(SystemExit):
        campaign.main(["size", "sizes"])
    assert "no parser is called sizes" in capsys.readouterr().err


@NEEDS_ATHERIS
def test_a_campaign_reaches_code(tmp_path, capsys):
    assert campaign.main(["size", "--runs", "300", "--folder", str(tmp_path)]) == 0
    assert "300 runs" in capsys.readouterr().out
    assert campaign.outcome((tmp_path / "size/log").read_text(), tmp_path, 0).coverage > 5


@NEEDS_ATHERIS
def test_a_finding_is_kept(tmp_path):
    words = [sys.executable, "-c", BAD, str(tmp_path)]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "a leak" in done.stdout + done.stderr
    (crash,) = tmp_path.glob("crash-*")
    assert crash.read_bytes().startswith(b"P")
