"""Every rule of the monitor broken, in as small a way as it can be: `cases`, by the rule's id.

A breach takes a valid history (see `histories`), changes it, and returns the steps at whose entries
the rule must be found broken, and no other rule anywhere. It returns None where the history has
nothing that it could be done to.
"""

from tests.factories import breaches_of_decisions, breaches_of_segments, breaches_of_sessions
from tests.factories.breaking import BREACHES

__all__ = ["BREACHES", "breaches_of_decisions", "breaches_of_segments", "breaches_of_sessions"]


def cases(*rules):
    """Pairs of a rule and a breach of it, of some rules or of all."""
    return [(name, breach) for name, breach in BREACHES if not rules or name in rules]


def case_id(value):
    """How pytest calls them."""
    return value if isinstance(value, str) else value.__name__
