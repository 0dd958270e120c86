"""`make demo`: a person and an agent work in a real PostgreSQL through the gateway.

With `--servers` (`make demo-servers`) the recordings are on real Kafka, S3, PostgreSQL and
OpenSearch, else in files. Ends with exit code 0 only if all of it happened: both sessions recorded
and sealed, found by their text while live, replayed, verified, and a tampered copy caught with the
frame named; then one session taken away as evidence, verified offline by two verifiers, and a
tampered copy of it refused by both.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from deploy.demo.stores import world  # noqa: E402
from sealtape.schemas.bundle import open_bundle, pack_bundle  # noqa: E402
from tests.servers.cache import FetchError  # noqa: E402
from tests.servers.postgres import PostgresServer, client_environment, program  # noqa: E402
from tests.servers.process import ServerError  # noqa: E402

SEALTAPE = [sys.executable, "-P", "-m", "sealtape.indexer.cli.main"]
OURS = [*SEALTAPE, "verify"]
SECOND = [sys.executable, "-I", str(ROOT / "deploy/verifier/sealtape_verify.py")]
COLOUR = sys.stdout.isatty()
STARTED = time.monotonic()


def say(text):
    """Print a heading."""
    mark = f"\n[{time.monotonic() - STARTED:5.1f} s] {text}"
    print(f"\x1b[1m{mark}\x1b[0m" if COLOUR else mark, flush=True)


def show(text, limit=16):
    """Print what a command printed, indented and cut."""
    lines = text.rstrip().splitlines()
    for line in lines[:limit]:
        print("    " + line[:160])
    if len(lines) > limit:
        print(f"    … {len(lines) - limit} more lines")
    sys.stdout.flush()


class DemoFailed(Exception):
    """A step did not do what it promises."""


def check(truth, what):
    """End the demo unless `truth`."""
    if not truth:
        raise DemoFailed(what)


class Lab:
    """The deployment that the demo runs."""

    def __init__(self, folder):
        self.folder = folder
        self.config = folder / "sealtape.toml"
        self.process = None

    def start(self, target):
        """Start `sealtape dev` and wait until it is ready."""
        self.process = subprocess.Popen(
            [*SEALTAPE, "dev", str(self.folder), "--target", target, "--json"],
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        check(line, "sealtape dev did not start; its message is above")
        return json.loads(line)

    def run(self, *words, expect=0, env=None):
        """Run a `sealtape` command and return what it printed."""
        done = subprocess.run(
            [*SEALTAPE, *words, "-c", str(self.config)] if words[0] != "connect" else
            [*SEALTAPE, "connect", "-c", str(self.config), *words[1:]],
            capture_output=True, text=True, check=False, env=env,
        )  # fmt: skip
        if done.returncode != expect:
            raise DemoFailed(
                f"sealtape {' '.join(words)}: exit {done.returncode}, expected {expect}\n"
                f"{done.stdout}{done.stderr}"
            )
        return done.stdout

    def lines(self, *words):
        """Run a command with --json and return its objects."""
        return [json.loads(line) for line in self.run(*words, "--json").splitlines()]

    def until(self, what, words, good, seconds=30.0):
        """Ask until an answer is good, and return it with the time it took."""
        begin = time.monotonic()
        while time.monotonic() - begin < seconds:
            found = self.lines(*words)
            if good(found):
                return found, time.monotonic() - begin
            time.sleep(0.1)
        raise DemoFailed(f"{what}: not within {seconds:.0f} s")

    def stop(self):
        """Let it drain and end."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise DemoFailed("sealtape dev did not drain within 30 s") from None


def person(lab):
    """A person's psql session, through `sealtape connect`."""
    statements = [
        (
            "select city, count(*), sum(total) from orders join customers c on c.id = customer"
            " group by city order by 1"
        ),
        "update orders set note = 'checked by ada' where id = 77",
        "select * from salaries",
    ]
    words = ["connect", "shop", "--user", "ada", "--group", "dba", "--", program("psql"), "-X"]
    for statement in statements:
        words += ["-c", statement]
    out = subprocess.run(
        [*SEALTAPE, *words[:1], "-c", str(lab.config), *words[1:]],
        capture_output=True, text=True, check=False, env=client_environment(),
    )  # fmt: skip
    show(out.stdout + out.stderr)
    check("Lyon" in out.stdout, "psql did not get its rows through the gateway")
    check("salaries" in out.stderr, "psql did not get the target's error through the gateway")


async def agent(lab):
    """An AI agent's session with lineage claims; found by its text while it is still open."""
    import asyncpg

    token = lab.run(
        "token", "--user", "robo", "--group", "agents", "--agent", "invoice-bot",
        "--on-behalf-of", "grace", "--run", "run-4711",
    ).strip()  # fmt: skip
    dsn = json.loads(lab.run("connect", "shop", "--json"))["dsn"]
    connection = await asyncpg.connect(dsn, password=token, timeout=20)
    try:
        rows = await connection.fetch("select id, total from orders where customer = $1", 42)
        check(rows, "the agent got no rows")
        await connection.execute("delete from orders where id = 1999")
        found, took = await asyncio.to_thread(
            lab.until, "the live search hit", ("search", "agent:invoice-bot effect:write"), bool
        )
        hit = found[0]
        check(hit["state"] == "live", "the session was not live any more")
        say(f"found {took:.1f} s after, while the agent's session is still open")
        show(lab.run("search", "agent:invoice-bot effect:write"))
        check(hit["run"] == "run-4711" and hit["on_behalf_of"] == ["grace"], "lineage is missing")
        return hit["session"]
    finally:
        await connection.close()


def prepare(lab, stores):
    """Make the deployment, and on servers what it needs there."""
    table = stores.settings()
    if not table:
        return  # `sealtape dev` makes what is in files
    lab.folder.mkdir(parents=True)
    subprocess.run([*SEALTAPE, "init", str(lab.folder), "--dev"], check=True, capture_output=True)
    lab.config.write_text(lab.config.read_text() + table)
    say("`sealtape setup` makes topics, schemas with their roles, and index templates")
    show(lab.run("setup"))


def tour(lab, server, stores):
    """Everything the demo shows, in order."""
    target = f"shop=postgresql://app:the-targets-own-password@127.0.0.1:{server.port}/shop?sslmode=disable"
    say("starting the gateway: capture, ingest and indexer in one process")
    ready = lab.start(target)
    show(f"listening on {ready['listeners']['postgres']}, target: {', '.join(ready['targets'])}")

    say("ada works with psql; her password is a token, the target's password stays hidden")
    person(lab)

    say("an agent works with asyncpg, with a token that says for whom and in which run")
    session = asyncio.run(agent(lab))

    say("waiting until both sessions are sealed")
    done, _ = lab.until(
        "sealing",
        ("sessions",),
        lambda found: len(found) == 2 and all(s["state"] == "sealed" for s in found),
    )
    show(lab.run("sessions"))
    if where := stores.where(lab.folder):
        say("what the servers hold now")
        show("\n".join(where))
    check({s["user"] for s in done} == {"ada", "robo"}, "the identities are wrong")

    say("replaying ada's session from the recorded bytes")
    hers = next(s["session"] for s in done if s["user"] == "ada")
    replay = lab.run("replay", hers)
    show(replay, 24)
    check("Lyon" in replay and "salaries" in replay, "the replay lacks what ada saw")

    say("verifying everything: signatures, trees, chains, every payload, facts against bytes")
    report = lab.run("verify", "--all", "--deep")
    show(report)

    say("one bit is flipped in a copy of the sealed data")
    twin = Lab(lab.folder.parent / "tampered")
    changed = stores.tampered(lab.folder, twin.folder, session)
    check(changed is not None, "the session has no sealed DATA frame")
    name, seq = changed
    show(f"in {name}, inside frame {seq} of session {session[:12]}")
    caught = json.loads(twin.run("verify", session, "--json", expect=1))
    show(twin.run("verify", session, expect=1))
    check(caught["verdict"] == "tampered", "the tampered copy was not caught")
    frames = {(f["session"], f["seq"]) for f in caught["findings"] if f["layer"] == "frame"}
    check((session, seq) in frames, f"the finding does not name frame {seq}")
    evidence(lab, hers)


def evidence(lab, session):
    """A session leaves as one file, and is judged by who trusts neither the deployment nor us."""
    away = lab.folder.parent / "auditor"
    away.mkdir()
    policy, bundle = away / "policy.toml", away / "ada.zip"
    shutil.copy(lab.folder / "policy.toml", policy)
    say("ada's session leaves as evidence: one file, for an auditor who has his own policy")
    words = ("export", session, "-o", str(bundle), "--wait", "60")
    show(lab.run(*words))
    show(judged(OURS, bundle, policy, expect=0), 30)

    say("a second verifier, one file of Python that shares no code with the first, says the same")
    show(judged(SECOND, bundle, policy, expect=0), 30)

    say("one byte of a frame in it is flipped, and every checksum made anew; both name the frame")
    twin = away / "tampered.zip"
    seq = flip(bundle, twin)
    for name, verifier in (("the first", OURS), ("the second", SECOND)):
        told = json.loads(judged(verifier, twin, policy, "--json", expect=1))
        check(told["verdict"] == "tampered", f"{name} did not catch the tampered bundle")
        found = [f for f in told["findings"] if f["step"] == "frames" and f["frames"][0] == seq]
        check(found, f"{name} does not name frame {seq}")
        show(f"{name + ':':12} TAMPERED  frame {seq}: {found[0]['reason']}")


def judged(verifier, bundle, policy, *more, expect):
    """What a verifier says of a bundle."""
    done = subprocess.run(
        [*verifier, str(bundle), "--policy", str(policy), *more],
        capture_output=True, text=True, check=False, env=client_environment(), cwd=policy.parent,
    )  # fmt: skip
    told = done.stdout + done.stderr
    check(done.returncode == expect, f"{verifier[-1]}: exit {done.returncode}\n{told}")
    return done.stdout


def flip(bundle, twin):
    """Copy a bundle, one byte of a frame changed, all sums made anew; returns its seq."""
    files = {name: bytes(data) for name, data in open_bundle(bundle.read_bytes()).files.items()}
    frames, at, wanted = bytearray(files["frames/0.bin"]), 0, 2
    for seq in range(wanted + 1):  # a header of 84 bytes, a length, the payload
        length = int.from_bytes(frames[at + 84 : at + 88], "big")
        if seq == wanted:
            frames[at + 88 + length // 2] ^= 1
        at += 88 + length
    del files["SHA256SUMS"]
    twin.write_bytes(pack_bundle(files | {"frames/0.bin": bytes(frames)}))
    return wanted


def farewell(lab, stores, *, keep):
    """Where everything is, and what to try."""
    again = "make demo" if stores.settings() == "" else "make demo-servers"
    vault = (
        ""
        if stores.settings()
        else f"""
  sealed objects  {lab.folder}/vault   (Parquet: any tool reads the header columns)"""
    )
    print(f"""
  deployment      {lab.folder}   (settings: {lab.config}){vault}
  tampered copy   {lab.folder.parent}/tampered
  evidence        {lab.folder.parent}/auditor   (the bundle, a tampered copy, the auditor's policy)

  try next{"" if keep else f" (with `{again} KEEP=1` it all keeps running)"}:
    export SEALTAPE_CONFIG={lab.config} PATH="{ROOT}/.venv/bin:$PATH"
    sealtape sessions
    sealtape search 'effect:write'
    sealtape connect shop --user you --group dba -- {program("psql")}
    sealtape verify --all --deep; sealtape status
    cd {lab.folder.parent}/auditor && sealtape verify ada.zip --policy policy.toml
""")
    if keep:
        print("  running; press Ctrl-C to stop\n", flush=True)
        lab.process.wait()


def main():
    """Run the demo and return its exit code."""
    toured = False
    stores = world(sys.argv[1:])
    folder = Path(tempfile.mkdtemp(prefix="sealtape-demo-"))
    lab = Lab(folder / "lab")
    server = PostgresServer()
    try:
        stores.start(folder)
        say("starting PostgreSQL 18 with a sample shop")
        server.start()
        server.sql("create database shop")
        server.sql((ROOT / "deploy/demo/shop.sql").read_text(), database="shop")
        prepare(lab, stores)
        tour(lab, server, stores)
        say("done: recorded, found live, sealed, replayed, verified, proven, tampering caught")
        toured = True
        farewell(lab, stores, keep=os.environ.get("KEEP", "0") not in ("", "0"))
        return 0
    except (DemoFailed, ServerError, FetchError) as exc:
        print(f"\ndemo failed: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0 if toured else 130  # whoever interrupts the tour has not seen it all
    finally:
        lab.stop()
        server.stop()
        stores.stop()


if __name__ == "__main__":
    sys.exit(main())
