"""Bundles each part of which a test can change before it is hashed and signed.

    files = story(seal={"closed": "target"})      # the seal says something else than CLOSE
    report = judged(files)

What they are made of is `tests/vectors/bundle_parts.py`, put together by hand.
"""

import json

from sealtape.schemas.evidence import parse_evidence_policy
from sealtape.schemas.verify.bundle import verify_bundle
from tests.factories import timestamps as tsa
from tests.vectors.bundle_parts import Log, line, packed, segment_entry, sha, vkey, zipped
from tests.vectors.generate_bundle import BOTH, begun, built, files, policy

__all__ = ["ANN", "BOB", "BOTH", "LOOSE", "PLAIN", "Log", "found", "judged", "story", "zipped"]

ANN, BOB = "admin.example/ann", "admin.example/bob"
PLAIN = policy()
LOOSE = policy(require="[]")


def story(  # one part is one argument
    *, epoch=None, cuts=(), opened=None, seal=None, record=None, segment=None, open_class=None,
    before=(), after=(), late=(), closed="client", attested=None, witnesses=BOTH, lost=0,
    withheld=(), spans=None, introduced=True, gaps=None, bounds=(), keys=None,
):  # fmt: skip
    """A bundle's files by name.

    Args:
        epoch: its frames; five without.
        cuts: where fragments end; one fragment without.
        opened, seal, record, segment: members of entries and records that say something else.
        open_class: the retention class.
        before, after, late: functions of the log, called before the session is opened, after it
            is sealed, and behind the heartbeat. Their entries are in the bundle.
        closed, attested, lost: what the seal says.
        witnesses: who cosigns the checkpoint.
        withheld: payloads.
        spans: ranges of frames that are there; all without.
        introduced: whether the node's key is in the log.
        gaps: by the number of the fragment.
        bounds: sizes of earlier checkpoints; without, of all that the functions had made.
        keys: the file of epoch 0.
    """
    log = begun(introduced=introduced)
    for step in before:
        step(log)
    options = {} if open_class is None else {"class_": open_class}
    epoch = epoch or built(**options)
    epoch.open_entry(log, **(opened or {}))
    count = len(epoch.frames)
    ends = [*cuts, count]
    fragments, prev, begin = [], bytes(32), 0
    for number, end in enumerate(ends):
        stated = (gaps or {}).get(number, ())
        begin = stated[-1][1] if stated else begin
        data = epoch.fragment(begin, end, signed=end, missing=stated, **(record or {}))
        index, prev, path = segment_entry(
            log, number, prev, data, end - begin, epoch.class_, **(segment or {})
        )
        fragments.append((data, index, path))
        begin = end
    if seal is not False:
        records = [data for data, _, _ in fragments]
        signed = count if attested is None else attested
        epoch.seal_entry(log, records, closed, signed, lost, **(seal or {}))
    for step in after:
        step(log)
    log.heartbeat()
    for step in late:
        step(log)
    log.checkpoint(40, witnesses)
    wanted = [index for index in range(len(log.entries)) if index != log.hidden]
    noted = [size for size in log.notes if size != len(log.entries)]
    epochs = {0: (epoch, fragments, [(0, count)] if spans is None else spans)}
    return files(log, wanted, epochs, bounds=bounds or noted, withheld=withheld, keys=keys)


def judged(given, rules=PLAIN, **options):
    """The report on files, or on the bytes of a bundle."""
    data = packed(given) if isinstance(given, dict) else given
    return verify_bundle(data, parse_evidence_policy(rules.encode()), **options)


def found(report, step):
    """What a step found: verdicts and reasons."""
    return [(item.verdict, item.reason) for item in report.findings if item.step == step]


def note_of(given):
    """Name and whole note of the bundle's checkpoint."""
    (name,) = [name for name in given if name.startswith("checkpoints/") and "." not in name]
    return name, given[name]


ROOT = tsa.Party("Root 1", 10, ca=True)
SIGNER = tsa.Party("Authority 1", 11, ROOT)


def stamped(given, authority="one", *, over=None, name=None):
    """With a time-stamp over its checkpoint, of 2026-11-23T00:00:00Z."""
    place, note = (name, given[name]) if name else note_of(given)
    size = place.rpartition("/")[2]
    tsr = tsa.answer(SIGNER, sha(note if over is None else over))
    stem = f"timestamps/{size}/{authority}"
    return {**given, f"{stem}.tsr": tsr, f"{stem}.pem": SIGNER.pem}


def with_authority(rules=PLAIN, name="one", root=None):
    """A policy that knows the authority too."""
    roots = (root or ROOT).pem.decode()
    return f'{rules}[[tsa]]\nname = "{name}"\nroots = """\n{roots}"""\n'


def trusting(rules, *names):
    """A policy in which these nodes need no entry."""
    return rules + "".join(f'[[nodes]]\nvkey = "{vkey(name)}"\n' for name in names)


def reworded(given, name, **members):
    """A JSON file of the bundle with other members."""
    return {**given, name: line(json.loads(given[name]) | members).encode()}
