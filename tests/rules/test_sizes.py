"""Rule: a file of the package has at most 350 lines of code, a function at most 70, a class at most 25 methods.

Comments, docstrings and blank lines are not counted, so that explaining is never what a limit costs.
"""

import ast
import io
import tokenize
from functools import cache

from source_tree import Source, package_sources

MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 70
MAX_METHODS = 25

EXCEPTIONS: frozenset[str] = frozenset()
"""Files, and classes as `file:class`, that still exceed a limit. The list may only become shorter."""

_UNCOUNTED = frozenset(
    {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
)


def code_lines(source: Source) -> set[int]:
    """Return the numbers of the lines that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type not in _UNCOUNTED:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines - _docstring_lines(source.tree)


def _docstring_lines(tree: ast.AST) -> set[int]:
    """Return the lines of all strings that stand alone: docstrings of definitions and of attributes."""
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def faults(source: Source) -> dict[str, str]:
    """Return the fault of each file, function and class that exceeds a limit, by its name."""
    counted = cache(lambda: code_lines(source))  # takes long, and only a long text can hold much code
    found: dict[str, str] = {}
    if source.text.count("\n") > MAX_FILE_LINES and len(counted()) > MAX_FILE_LINES:
        found[source.path] = f"{source.path}: {len(counted())} lines of code"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            extent = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            length = len(counted().intersection(extent)) if len(extent) > MAX_FUNCTION_LINES else 0
            if length > MAX_FUNCTION_LINES:
                name = f"{source.path}:{node.name}"
                found[name] = f"{name} has {length} lines of code"
        elif isinstance(node, ast.ClassDef):
            methods = sum(isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) for each in node.body)
            if methods > MAX_METHODS:
                name = f"{source.path}:{node.name}"
                found[name] = f"{name} has {methods} methods"
    return found


@cache
def _all_faults() -> dict[str, str]:
    return {name: fault for source in package_sources() for name, fault in faults(source).items()}


def test_files_functions_and_classes_are_small() -> None:
    found = [fault for name, fault in _all_faults().items() if name not in EXCEPTIONS]
    assert not found, "\n".join(found)


def test_no_exception_is_listed_in_vain() -> None:
    assert _all_faults().keys() >= EXCEPTIONS, sorted(EXCEPTIONS - _all_faults().keys())


def test_rule_sees_a_long_file() -> None:
    assert faults(Source("a.py", "x = 1\n" * MAX_FILE_LINES)) == {}
    assert faults(Source("a.py", "x = 1\n" * (MAX_FILE_LINES + 1))) == {"a.py": "a.py: 351 lines of code"}


def test_rule_sees_a_long_function() -> None:
    method = "class A:\n    async def f(self):\n" + "        x = 1\n" * (MAX_FUNCTION_LINES - 1)
    assert faults(Source("a.py", method)) == {}
    found = faults(Source("a.py", method + "        x = 1\n"))
    assert found == {"a.py:f": "a.py:f has 71 lines of code"}


def test_rule_sees_a_class_of_many_methods() -> None:
    methods = "".join(f"    def f{number}(self):\n        pass\n" for number in range(MAX_METHODS))
    assert faults(Source("a.py", f"class A:\n{methods}")) == {}
    found = faults(Source("a.py", f"class A:\n{methods}    def g(self):\n        pass\n"))
    assert found == {"a.py:A": "a.py:A has 26 methods"}


def test_comments_docstrings_and_blank_lines_are_not_counted() -> None:
    text = '"""An\n\nopening."""\n\n# Why.\nx = 1\n"""Of x."""\n\ny = """a\nb"""\n'
    assert code_lines(Source("a.py", text)) == {6, 9, 10}
