"""Every public name of the library says what it is; a method may inherit its words from the interface it implements."""

import importlib
import inspect
import pkgutil

import pytest

import ravine

MODULES = sorted(m.name for m in pkgutil.walk_packages(ravine.__path__, "ravine."))


def undescribed(module_name: str) -> list[str]:
    module = importlib.import_module(module_name)
    named = {n: o for n, o in vars(module).items() if not n.startswith("_") and inspect.getmodule(o) is module}
    public = {n: o for n, o in named.items() if inspect.isclass(o) or inspect.isfunction(o)}
    methods = {
        f"{name}.{method}": getattr(o, method)
        for name, o in public.items()
        if inspect.isclass(o)
        for method, value in vars(o).items()
        if not method.startswith("_") and callable(value)
    }
    return [f"{module_name}.{n}" for n, o in (public | methods).items() if not inspect.getdoc(o)]


@pytest.mark.parametrize("module", MODULES)
def test_public_names_are_described(module):
    assert undescribed(module) == []
