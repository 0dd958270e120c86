"""One parser, fed with inputs that are chosen by the code they reach (atheris, a libFuzzer).

    python -m tests.fuzz.guided PARSER --runs N --seed S [--folder DIR]
    python -m tests.fuzz.guided PARSER --replay FILE

An input that makes the parser raise what it must not, take more than a second or more than 64 MiB
is a finding: it is written to the folder, and the exit code is not 0. `--replay` needs no atheris.
"""

import argparse
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["Watch", "dictionary", "main"]

STUCK_S = 10  # of the clock on the wall, for what never comes back; a busy machine is not a hang
LEAK_MB = 512  # over all inputs together: the fuzzer keeps its corpus in memory
INSTRUMENTED = ["sealtape", "sealtape_verify"]


class Watch:
    """A parser whose hangs and greed are raised as `AssertionError`.

    Time is the processor's. Memory is the peak that Linux counts for the process, set back to
    what is held whenever an input has raised it.
    """

    def __init__(self, parse, parsed, hang_s, memory):
        self.parse, self.parsed, self.hang_s, self.memory = parse, parsed, hang_s, memory
        _forget_peak()

    def __call__(self, data):
        peak, begun = _peak(), time.thread_time()
        taken = self.parsed(self.parse, data)
        took, grown = time.thread_time() - begun, _peak() - peak
        if grown:
            _forget_peak()
        assert took <= self.hang_s, f"took {took:.1f} s for {len(data)} bytes"
        assert grown <= self.memory, f"took {grown >> 20} MiB for {len(data)} bytes"
        return taken


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _forget_peak():
    Path("/proc/self/clear_refs").write_bytes(b"5")


def dictionary(words):
    """Words in the form that libFuzzer reads."""
    lines = ("".join(f"\\x{byte:02x}" for byte in word) for word in words)
    return "".join(f'"{line}"\n' for line in lines)


def written(folder, samples, words):
    """The folder with the samples in its corpus; what an earlier run found there stays."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, sample in enumerate(samples):
        (corpus / f"sample-{number}").write_bytes(sample)
    (folder / "words").write_text(dictionary(words), encoding="ascii")
    return corpus


def flags(folder, corpus, runs, seed):
    """The words of libFuzzer's command line."""
    rss = (_peak() >> 20) + LEAK_MB
    return [
        sys.argv[0], str(corpus), f"-runs={runs}", f"-seed={seed}", f"-timeout={STUCK_S}",
        f"-rss_limit_mb={rss}", f"-dict={folder / 'words'}", f"-artifact_prefix={folder}/",
        "-keep_seed=1", "-print_final_stats=1",
    ]  # fmt: skip


def fuzz(name, runs, seed, folder):
    """Never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz import seeds
    from tests.fuzz.mutations import WORDS, changed

    parse, samples = seeds.PARSERS[name]
    for sample in samples:  # what is loaded at the first use is not the input's doing
        seeds.parsed(parse, sample)
    watch = Watch(parse, seeds.parsed, seeds.HANG_S, seeds.MEMORY)

    def mutated(data, most, seed):
        luck = random.Random(seed)
        if luck.randrange(2):
            return atheris.Mutate(data, most)
        return changed(luck.choice([data, luck.choice(samples)]), luck, samples)[:most]

    corpus = written(folder, samples, WORDS)
    words = flags(folder, corpus, runs, seed)
    atheris.Setup(words, lambda data: watch(data) and None, custom_mutator=mutated)
    atheris.Fuzz()


def replay(name, file):
    """What the parser says of one input; a finding is raised once more."""
    from tests.fuzz import seeds

    parse, samples = seeds.PARSERS[name]
    for sample in samples:
        seeds.parsed(parse, sample)
    watch = Watch(parse, seeds.parsed, seeds.HANG_S, seeds.MEMORY)
    print(f"{name}: {'taken' if watch(file.read_bytes()) else 'refused'}")


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Feeds one parser of foreign bytes.")
    parser.add_argument("parser", help="a name in tests/fuzz/seeds.py")
    parser.add_argument("--runs", type=int, default=100_000, help="inputs (100000)")
    parser.add_argument("--seed", type=int, default=1, help="of the inputs (1)")
    parser.add_argument("--folder", type=Path, help="for corpus and findings; else a temporary one")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="only this input")
    options = parser.parse_args(arguments)
    if options.replay:
        replay(options.parser, options.replay)
        return
    folder = options.folder or Path(tempfile.mkdtemp(prefix="sealtape-fuzz-"))
    fuzz(options.parser, options.runs, options.seed, folder)


if __name__ == "__main__":
    main()
