"""The matrix works on the deployment of the stories."""

from tests.stories.deployed import deployed, site

__all__ = ["deployed", "site"]
