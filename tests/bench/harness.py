"""Interleaved rounds, medians and best; tables for the terminal and for the documentation."""

import platform
import re
import statistics
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.processes import cpu_s
from tests.servers.postgres import program

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/benchmarks.md"
_PROGRESS = re.compile(r"progress: ([\d.]+) s, ([\d.]+) tps")


class Samples:
    """What was measured, by route and quantity, one value a round."""

    def __init__(self):
        self.values = defaultdict(lambda: defaultdict(list))

    def add(self, route, **quantities):
        for name, value in quantities.items():
            self.values[route][name].append(value)

    def median(self, route, quantity):
        return statistics.median(self.values[route][quantity])

    def best(self, route, quantity):
        return max(self.values[route][quantity])

    def least(self, route, quantity):
        return min(self.values[route][quantity])

    def ratio(self, route, base, quantity):
        """The median of the rounds' own ratios: both sides of each were measured together."""
        if base not in self.values or not all(self.values[base][quantity]):
            return None
        pairs = zip(self.values[route][quantity], self.values[base][quantity], strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)

    @property
    def routes(self):
        return list(self.values)


def interleave(rounds, routes, measure):
    """Measure all routes once, then all again, so that a busy minute hits all of them."""
    samples = Samples()
    for number in range(rounds):
        # Every other round backwards: nobody always runs in the shadow of the same neighbour.
        for route in routes if number % 2 == 0 else reversed(routes):
            samples.add(route.name, **measure(route))
    return samples


def window(route, progress):
    """CPU and transactions between the first and the last report of a load."""
    points = [(seconds, count, cpu_s(route.pids)) for seconds, count in progress]
    (begin_s, begin_n, begin_cpu), (end_s, end_n, end_cpu) = points[0], points[-1]
    done = end_n - begin_n
    return {
        "per_s": done / (end_s - begin_s),
        "cpu_us": (end_cpu - begin_cpu) / done * 1e6,
        "n": done,
        "cpu_s": end_cpu - begin_cpu,
        "s": end_s - begin_s,
    }


def pgbench(route, *words, seconds, clients=16):
    """Run pgbench and yield (seconds, transactions) every second, from the end of the first on.

    The first second, in which pgbench connects, and the end, in which it closes, are left out.
    """
    command = [
        program("pgbench"), "-n", "-c", str(clients), "-j", "1", "-T", str(seconds + 2), "-P", "1",
        *words,
    ]  # fmt: skip
    with subprocess.Popen(
        command, env=route.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        last_s = count = 0.0
        said = []
        for line in process.stderr:
            said.append(line)
            found = _PROGRESS.match(line)
            if found is None:
                continue
            now_s = float(found[1])
            count += float(found[2]) * (now_s - last_s)
            last_s = now_s
            yield now_s, count
        process.stdout.read()
    if process.returncode:
        raise RuntimeError(f"pgbench failed: {''.join(said)[-2000:]}")


@dataclass
class Table:
    """A result: rows under a heading, with what was asked of them."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def row(self, *cells):
        self.rows.append(tuple("–" if cell is None else str(cell) for cell in cells))

    def goal(self, text, value, bound, *, at_most):
        """Note a figure against its goal; a None was not measured."""
        if value is not None:
            met = value <= bound if at_most else value >= bound
            sign = "≤" if at_most else "≥"
            self.notes.append(
                f"{text}: {figure(value)} (goal {sign} {figure(bound)}): "
                + ("reached" if met else "**not reached**")
            )

    def markdown(self):
        """As it stands in the documentation."""
        lines = [f"### {self.title}", ""]
        lines += ["| " + " | ".join(self.columns) + " |", "|" + "---|" * len(self.columns)]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        if self.notes:
            lines += ["", *(f"* {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"

    def text(self):
        """As it is printed."""
        grid = [self.columns, *self.rows]
        widths = [max(len(row[i]) for row in grid) for i in range(len(self.columns))]
        lines = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in grid
        ]
        return "\n".join(["", self.title, *lines, *(f"  {note}" for note in self.notes), ""])


def figure(value):
    """A number with as many digits as mean something."""
    if value is None:
        return "–"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def machine():
    """What the numbers were measured on, in one line."""
    names = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return (
        f"{len(names)} × {names[0] if names else platform.processor()}, "
        f"{int(memory[1]) / (1 << 20):.0f} GiB, Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}"
    )


def write(name, body):
    """Put a result between its markers in the documentation."""
    begin, end = f"<!-- bench: {name} -->\n", f"<!-- end: {name} -->\n"
    text = DOCUMENT.read_text()
    head, found, rest = text.partition(begin)
    tail = rest.partition(end)[2]
    if not found or end not in rest:
        raise RuntimeError(f"{DOCUMENT.name} has no place for {name}: {begin}{end}")
    DOCUMENT.write_text(head + begin + body + end + tail)
