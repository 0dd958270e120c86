"""What the second verifier says of everything it is asked about, whichever module it is.

    expected = [asked(ask, second) for _, ask in questions()]
    noticed(module, expected)              the first question that another one answers otherwise

So one missing check can be asked about in a second; `tests/verifier/test_second.py` holds the
answers against the first verifier.
"""

import base64
import functools
import json
import random
import signal
import struct
import types
import zlib
from collections import Counter
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.vectors.bundle_parts import compact, consistency, inclusion, leaf, packed, root, sha
from tests.vectors.generate_bundle import policy, whole
from tests.verifier.corpus import BUNDLES, exchanged, flips, mutants
from tests.verifier.insiders import INSIDERS
from tests.verifier.single_checks import POLICIES, REFUSED_NOTES, SINGLE, UNABLE
from tests.verifier.stories import STORIES

__all__ = ["FILE", "asked", "loaded", "noticed", "policies", "questions", "said", "zip_of"]

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "deploy/verifier/sealtape_verify.py"
VECTORS, NOTES = (
    json.loads((ROOT / f"tests/vectors/{name}.json").read_text(encoding="utf-8"))
    for name in ("bundle", "notes")
)
LIMIT_S = 10.0
_TELLING: Counter[int] = Counter()
"""How often a question told a verifier from the one as it is: the most telling come first."""
SAMPLE = 12


def loaded(code, verify=None):
    """The verifier as a module; `verify` instead of its arithmetic."""
    module = types.ModuleType("sealtape_verify")
    exec(code, module.__dict__)
    if verify is not None:
        module.verify_ed25519 = verify
    return module


def noticed(module, expected):
    """The question that this verifier answers otherwise, None when there is none."""
    asks = questions()
    for at in sorted(range(len(asks)), key=lambda at: -_TELLING[at]):
        name, ask = asks[at]
        if asked(ask, module) != expected[at]:
            _TELLING[at] += 1
            return name
    return None


def asked(ask, module):
    """The answer; `refused`, or another exception's name, where there is none."""
    signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        return ask(module)
    except ValueError:
        return "refused"
    except struct.error:
        return "reads beyond the end"
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as error:
        return type(error).__name__
    except TimeoutError:
        return "takes too long"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _stop(number, frame):
    raise TimeoutError


@functools.cache
def questions():
    """All of them: (name, function of the module). The quick ones first."""
    quick = [*_signatures(), *_trees(), *_notes(), *_policies()]
    return [*quick, *_vectors(), *_stories(), *_bundles()]


# -- Ed25519, notes --------------------------------------------------------------------------------


def _signatures():
    for case in NOTES["refused_signatures"]:
        parts = [bytes.fromhex(case[name]) for name in ("public", "message", "signature")]
        yield f"signature: {case['name']}", functools.partial(_verified, parts)
    luck = random.Random("signatures")
    for number in range(4):
        key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
        public, signature = key.public_key().public_bytes_raw(), key.sign(b"m")
        yield f"signature {number}", functools.partial(_verified, (public, b"m", signature))
        for what, other in flips(signature, 6, luck):
            yield f"signature, {what}", functools.partial(_verified, (public, b"m", other))
        low = int.from_bytes(signature[32:], "little")
        for more in (2**252 + 27742317777372353535851937790883648493, 2**255 - low):
            other = signature[:32] + ((low + more) % 2**256).to_bytes(32, "little")
            yield "another S", functools.partial(_verified, (public, b"m", other))
    for y in range(2, 40):
        yield f"y {y} of a point", functools.partial(_is_point, y.to_bytes(32, "little"))


def _verified(parts, module):
    """By its own arithmetic, which `loaded` may have replaced for all else."""
    verify = getattr(module, "own_verify_ed25519", module.verify_ed25519)
    try:
        verify(*parts)
    except ValueError:
        return False
    return True


def _is_point(data, module):
    try:
        return module.point(data) is not None
    except ValueError:
        return False


def _trees():
    """Proofs and compact ranges of small trees, whole, short, long, and of other places."""
    leaves = [leaf(b"%d" % number) for number in range(9)]
    for size in range(1, 10):
        some = leaves[:size]
        for index in range(size):
            path = inclusion(some, index)
            for at in (index, index + 1, size):
                for other in (path, path[:-1], [*path, path[-1]] if path else [leaves[0]]):
                    yield "inclusion", functools.partial(_included, some[index], at, size, other)
            proof = consistency(some, index + 1)
            for other in (proof, proof[:-1], proof[1:]):
                old = root(some[: index + 1])
                yield "consistency", functools.partial(_consistent, old, index + 1, size, other)
            nodes = compact(some[index:], index)
            for other in (nodes, nodes[:-1], [*nodes, leaves[0]]):
                yield "range", functools.partial(_extended, some[:index], size, other)


def _included(digest, index, size, path, module):
    return module.Tree().included(digest, index, size, path)


def _consistent(old, size, whole, proof, module):
    left = [*proof]
    return module.Tree().consistent(size, whole, left, old), left


def _extended(before, hi, nodes, module):
    tree, lo = module.Tree(), len(before)
    begun = tree.extended([], 0, lo, compact(before, 0))
    return tree.root(tree.extended(begun, lo, hi, nodes))


def _notes():
    for what, change in REFUSED_NOTES.items():
        yield f"note: {what}", functools.partial(_opened, change(NOTES["note"]))
    for case in NOTES["refused_notes"]:
        yield f"note: {case['name']}", functools.partial(_opened, case["note"])
    for name in ("note", "two_signatures"):
        yield name, functools.partial(_opened, NOTES[name])
    for case in NOTES["refused_checkpoints"]:
        yield f"checkpoint: {case['name']}", functools.partial(_checkpoint, case["text"])
    yield "checkpoint", functools.partial(_checkpoint, NOTES["text"])


def _opened(note, module):
    read = module.Notation()
    return len(read.open_note(read.parse_note(note), [read.parse_key(NOTES["vkey"])]))


def _checkpoint(text, module):
    return module.Notation().parse_checkpoint(text)


# -- policies --------------------------------------------------------------------------------------


def policies():
    """Policies that the second verifier takes, and that it refuses, by name."""
    found = dict(VECTORS["refused_policies"]) | {"plain": policy()}
    found |= {f"requires {word}": policy(require=f'["{word}"]') for word in ("timestamp", "ml-dsa")}
    return found | POLICIES | UNABLE


def _policies():
    for name, text in policies().items():
        yield f"policy: {name}", functools.partial(_policy, text.encode())


def _policy(text, module):
    return module.Policy(text).sha256


# -- bundles ---------------------------------------------------------------------------------------


def _vectors():
    for case in VECTORS["cases"]:
        data = base64.b64decode(case["bundle"])
        yield f"vector: {case['name']}", functools.partial(_judged, data, case["policy"])


def _stories():
    for name, (files, rules) in (STORIES | SINGLE | INSIDERS).items():
        yield f"story: {name}", functools.partial(_reported, packed(files), rules)


def _bundles():
    for name, (files, rules) in BUNDLES.items():
        yield f"bundle: {name}", functools.partial(_reported, packed(files), rules)
    sums = "".join(f"{sha(data).hex()}  {name}\n" for name, data in sorted(whole().items()))
    inside = sorted({**whole(), "SHA256SUMS": sums.encode()}.items())
    for other in ([inside[1], inside[0], *inside[2:]], [inside[0], *inside], inside[::-1]):
        yield "files of a ZIP file", functools.partial(_ordered, other)
    data = packed(whole())
    for what, other in flips(data, 60, random.Random("zip")):
        yield f"ZIP file: {what}", functools.partial(_judged, other, policy())
    for name, (_, rules) in BUNDLES.items():
        cases = [*mutants(name, "sample", 4), *exchanged(name)]
        for what, _, files in random.Random(name).sample(cases, min(SAMPLE, len(cases))):
            yield what, functools.partial(_judged, packed(files), rules)


def _report(data, rules, module):
    return module.report(module.Verifier(data, module.Policy(rules.encode())))


def _judged(data, rules, module):
    return said(_report(data, rules, module))


def said(report):
    """Verdict and the first step that fails."""
    failed = [step for step, state in report["steps"].items() if state == "FAIL"]
    return report["verdict"], failed[:1]


def _reported(data, rules, module):
    report = _report(data, rules, module)
    notes = [found["step"] for found in report["findings"] if found["verdict"] == "note"]
    names = ("steps", "node_attested", "withheld", "absent", "fragments")
    return said(report), notes, *(report[name] for name in names)


def _ordered(files, module):
    return _judged(zip_of(module, files), policy(), module)


def zip_of(module, files):
    """A ZIP file of these, in this order, written by the second verifier's own two functions."""
    data, central = b"", b""
    for name, content in files:
        crc = zlib.crc32(content)
        local, header = module.zip_headers(name.encode(), len(content), crc, len(data))
        data, central = data + local + content, central + header
    return data + central + module.zip_end(len(files), len(central), len(data))
