"""Every story begins with the same deployment."""

from tests.stories.deployed import deployed, site

__all__ = ["deployed", "site"]
