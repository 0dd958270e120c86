"""The tests; a package so that `tests.world` and the like mean these and no one else's."""
