"""A plugin of pytest: imports one module without one of its checks (`verifier_mutants`)."""

import importlib.abc
import importlib.util
import os
import sys

from tests.house.verifier_mutants import ROOT, Mutant, mutated

_MODULE, _, _NODE = os.environ["SEALTAPE_MUTANT"].rpartition(":")
_NAME = "sealtape." + _MODULE.removesuffix(".py").replace("/", ".")


class _Loader(importlib.abc.Loader):
    def exec_module(self, module):
        tree = mutated(Mutant(_MODULE, int(_NODE), 0, ""))
        exec(compile(tree, str(ROOT / _MODULE), "exec"), module.__dict__)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname != _NAME:
            return None
        return importlib.util.spec_from_loader(fullname, _Loader(), origin=str(ROOT / _MODULE))


assert _NAME not in sys.modules, f"{_NAME} was imported before its mutant"
sys.meta_path.insert(0, _Finder())
