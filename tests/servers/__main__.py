"""python -m tests.servers list | fetch [NAME …] | up [NAME …]"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.servers import cache, foreground, registry


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.servers", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="what the cache has, and what a server lacks here")
    fetch = actions.add_parser("fetch", help="download and compile what is missing")
    fetch.add_argument("names", nargs="*", metavar="NAME", help="all, when none is named")
    up = actions.add_parser("up", help="start the whole set, or those named, until Ctrl-C")
    up.add_argument("names", nargs="*", metavar="NAME", help=", ".join(registry.WHOLE_SET))
    options = parser.parse_args()
    registry.load()
    if options.action == "list":
        return show()
    if options.action == "up":
        if unknown := set(options.names) - set(registry.WHOLE_SET):
            parser.error(f"no such server: {', '.join(unknown)}")
        return foreground.up(options.names)
    if unknown := set(options.names) - set(cache.RECIPES):
        parser.error(f"no such thing: {', '.join(unknown)}; there are {', '.join(cache.RECIPES)}")
    return fetch_all(options.names or list(cache.RECIPES))


def show() -> int:
    """Print a line for each thing."""
    print(f"cache: {cache.root()}")
    for recipe in cache.RECIPES.values():
        print(f"{recipe.name:20} {recipe.version:10} {recipe.lack() or 'ready'}")
    return 0


def fetch_all(names: list[str]) -> int:
    """Fetch, a compile beside a download; say what could not be had."""
    order = sorted(names, key=lambda name: "go" not in cache.RECIPES[name].needs)
    with ThreadPoolExecutor(2) as pool:
        failures = [error for error in pool.map(_attempt, order) if error]
    for error in failures:
        print(f"\n{error}", file=sys.stderr)
    lacking = [lack for name in names if (lack := cache.RECIPES[name].lack())]
    for lack in lacking:
        cache.say("not ready", lack)
    return 1 if failures or lacking else 0


def _attempt(name):
    try:
        cache.fetch(name)
    except cache.FetchError as error:
        return f"{name}: {error}"
    return None


if __name__ == "__main__":
    sys.exit(main())
