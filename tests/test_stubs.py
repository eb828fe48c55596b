"""The type stubs say what the compiled functions' signatures say."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import nnet

STUBS = sorted(Path(nnet.__file__).parent.glob("*.pyi"))


def stub_signature(node):
    """[(name, kind, default)] of a function in a stub; the default as text."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    rows = [(a.arg, "positional", d) for a, d in zip(positional, defaults)]
    rows += [(a.arg, "keyword", d) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults)]
    return [(name, kind, default and ast.unparse(default)) for name, kind, default in rows]


def runtime_signature(function):
    rows = []
    for name, parameter in inspect.signature(function).parameters.items():
        kind = "keyword" if parameter.kind is parameter.KEYWORD_ONLY else "positional"
        default = None if parameter.default is parameter.empty else repr(parameter.default)
        rows.append((name, kind, default))
    return rows


def test_every_compiled_module_has_a_stub():
    names = ["_atomic", "_augment", "_conv", "_dense", "_pool", "_program", "_runtime"]
    assert [path.stem for path in STUBS] == names
    assert (Path(nnet.__file__).parent / "py.typed").exists()


@pytest.mark.parametrize("path", STUBS, ids=lambda path: path.stem)
def test_stub_matches_the_module(path):
    module = importlib.import_module(f"nnet.{path.stem}")
    body = ast.parse(path.read_text()).body
    functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
    for name, node in functions.items():
        assert stub_signature(node) == runtime_signature(getattr(module, name)), name
        assert node.returns is not None
        assert all(a.annotation for a in [*node.args.args, *node.args.kwonlyargs]), name
    for node in body:
        if isinstance(node, ast.AnnAssign) and node.value is None:  # a variable, not an alias
            assert hasattr(module, node.target.id), node.target.id
    assert {kernel.__name__ for kernel in getattr(module, "KERNELS", ())} <= set(functions)
