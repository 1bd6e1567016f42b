"""Both modules have the names, signatures and constants of ``_native.pyi``, and nothing that is public besides."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import neuralcore
import neuralcore._core

STUB = ast.parse((Path(neuralcore.__file__).parent / "_native.pyi").read_text())
TYPES_ONLY = {"Overflow", "Settler"}


def public(name):
    return not name.startswith("_")


def declared_names(body):
    for node in body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name
        elif isinstance(node, ast.AnnAssign):
            yield node.target.id
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets)


CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef) and node.name not in TYPES_ONLY}
METHODS = [
    (class_name, node)
    for class_name, body in CLASSES.items()
    for node in body.body
    if isinstance(node, ast.FunctionDef) and (public(node.name) or node.name == "__new__")
]


def is_property(node):
    return any(isinstance(decorator, ast.Name) and decorator.id == "property" for decorator in node.decorator_list)


def stub_parameters(node):
    arguments = node.args
    for argument in arguments.posonlyargs:
        yield argument.arg, "positional only"
    for argument in arguments.args:
        yield argument.arg, "positional"
    for argument in arguments.kwonlyargs:
        yield argument.arg, "keyword only"


KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: "positional only",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "positional",
    inspect.Parameter.KEYWORD_ONLY: "keyword only",
}


def stub_defaults(node):
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    pairs = [
        *zip(reversed(positional), reversed(arguments.defaults), strict=False),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    return {argument.arg: ast.literal_eval(default) for argument, default in pairs if default is not None}


def test_the_module_has_exactly_the_public_names_of_the_stub(core):
    declared = set(filter(public, declared_names(STUB.body)))
    modules = {name for name, value in vars(core).items() if inspect.ismodule(value)}
    present = set(filter(public, vars(core))) - modules - {"annotations", "Final", "Literal"}
    assert declared - TYPES_ONLY <= present
    assert present <= declared


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_has_exactly_the_public_members_of_the_stub(core, name):
    declared = set(filter(public, declared_names(CLASSES[name].body)))
    present = set(filter(public, dir(getattr(core, name))))
    if any(isinstance(base, ast.Name) and base.id == "NamedTuple" for base in CLASSES[name].bases):
        present -= set(dir(tuple)) - declared
    assert present == declared


@pytest.mark.parametrize(("class_name", "node"), METHODS, ids=[f"{name}.{node.name}" for name, node in METHODS])
def test_each_method_has_the_parameters_of_the_stub(core, class_name, node):
    implemented = getattr(core, class_name)
    if node.name != "__new__":
        implemented = inspect.getattr_static(implemented, node.name)
    if is_property(node):
        assert inspect.isdatadescriptor(implemented)
        return
    parameters = list(inspect.signature(implemented).parameters.values())
    expected = [(name, kind) for name, kind in stub_parameters(node) if name not in {"self", "cls"}]
    given = [(each.name, KINDS[each.kind]) for each in parameters if each.name not in {"self", "$self"}]
    assert given == expected
    defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
    assert defaults == stub_defaults(node)


@pytest.mark.parametrize("name", [name for name in CLASSES if "NamedTuple" in ast.dump(CLASSES[name])])
def test_named_tuples_have_the_fields_of_the_stub_in_order(core, name):
    fields = [node.target.id for node in CLASSES[name].body if isinstance(node, ast.AnnAssign)]
    assert list(getattr(core, name)._fields) == fields


def test_each_module_says_which_implementation_it_is(core):
    assert core.__name__.removeprefix("neuralcore.").strip("_") == core.IMPLEMENTATION
    assert isinstance(core.DEBUG_BUILD, bool)


def test_the_chosen_core_exports_every_name_of_the_stub():
    declared = set(filter(public, declared_names(STUB.body)))
    assert declared <= set(neuralcore._core.__all__)
    assert all(hasattr(neuralcore._core, name) for name in neuralcore._core.__all__)
    assert set(neuralcore._core.__all__) - declared == {"is_native_available"}


def test_the_fallback_lists_what_it_exports():
    fallback = importlib.import_module("neuralcore.fallback")
    assert set(fallback.__all__) == set(filter(public, declared_names(STUB.body)))


def test_final_classes_cannot_be_told_apart_by_their_names(core):
    for name in CLASSES:
        assert getattr(core, name).__name__ == name
