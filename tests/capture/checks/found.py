"""Reading findings."""


def levels(checks):
    """The worst level by name."""
    order = ("ok", "warning", "error")
    found = {}
    for check in checks:
        assert check.level in order
        assert check.message
        assert check.level == "ok" or check.hint, check
        found[check.name] = max(found.get(check.name, "ok"), check.level, key=order.index)
    return found


def one(checks, level, word):
    """The only finding of that level; its message or hint says `word`."""
    (check,) = [check for check in checks if check.level == level]
    assert word in f"{check.message} {check.hint}", check
    return check
