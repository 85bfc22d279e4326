"""The house holds its floors: imports point down, never in a circle; files and functions stay small; nothing runs,
prints or reads the environment where it should not."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"

# Top floor first. A room imports from its own floor or one below.
FLOORS = [
    {"cli", "__main__"},
    {"demo"},
    {"serving"},
    {"auditing"},
    {"mends", "probes", "teaching"},
    {"inside"},
    {"tasks"},
    {"lm"},
    {"importers", "training"},
    {"folder"},
    {"models", "corpus", "world", "tokens", "text", "page"},
    {"cases", "errors", "registry", "config", "files", "wheels"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
STRANGERS = [
    ({"models"}, {"text", "corpus", "world"}),
    ({"training"}, {"lm"}),
    ({"probes"}, {"mends"}),
]
SINGLE = {"probes", "mends", "tasks"}  # a file of these rooms knows none of its neighbours, only `base` and `_helpers`
NOT_A_THING = {"__init__", "base", "apply"}  # what is no probe or mend in those rooms

TORCHLESS = {"errors", "registry", "cases", "files", "config", "text", "world", "tokens", "page"}
OPTIONAL = {
    "opencc",
    "presidio_analyzer",
    "spacy",
    "tldextract",
    "transformers",
    "huggingface_hub",
    "h5py",
    "duckdb",
    "resiliparse",
    "fastwarc",
    "pypdf",
    "docx",
    "ray",
    "fastokens",
}
MOST_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 400, 50, 6
RUNS_CODE = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
MODULES = sorted(FILES)


def room(module: str) -> str:
    """`qualm.lm.base` is in room "lm"; `qualm` itself in none."""
    return module.split(".")[1] if "." in module else ""


def imported(module: str, tree: ast.AST) -> Iterator[str]:
    """Full names of all that a tree imports; of ours, the module rather than the name taken from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import in line {node.lineno}"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in FILES else str(node.module)


@functools.cache
def ours(module: str) -> frozenset[str]:
    found = set(imported(module, TREES[module]))
    return frozenset(name for name in found if name in FILES and name not in ("qualm", module))


def everything_below(module: str) -> set[str]:
    seen, todo = set(), [module]
    while todo:
        if (name := todo.pop()) not in seen:
            seen.add(name)
            todo += ours(name)
    return seen


def nodes(module: str, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
    return (node for node in ast.walk(TREES[module]) if isinstance(node, kinds))


def at(module: str, node: ast.AST) -> str:
    return f"{FILES[module].relative_to(ROOT)}:{node.lineno}"


def dotted(node: ast.AST) -> str:
    """`os.path.join` for the tree of that expression, "" for anything else."""
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def test_every_room_has_a_floor():
    assert {room(m) for m in MODULES} - {""} <= set(FLOOR)


@pytest.mark.parametrize("module", [m for m in MODULES if room(m)])
def test_imports_point_down(module):
    here = room(module)
    for other in {room(name) for name in ours(module)} - {here, ""}:
        assert FLOOR[here] <= FLOOR[other], f"{module} imports upwards, from {other}/"
        for left, right in STRANGERS:
            met = (here in left and other in right) or (here in right and other in left)
            assert not met, f"{module} imports its stranger {other}/"


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) in SINGLE])
def test_probes_and_mends_do_not_know_each_other(module):
    if module.rsplit(".", 1)[-1] in NOT_A_THING:
        return
    for name in ours(module):
        last = name.rsplit(".", 1)[-1]
        if room(name) == room(module) and name.count(".") == 2:
            assert last == "base" or last.startswith("_"), f"{module} imports its neighbour {last}"


def circle(edges: dict[str, set[str]]) -> list[str]:
    """One circle of a directed graph, or nothing."""
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for other in sorted(edges[node]):
            if found := walk(other, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(edges) if (found := walk(node, []))), [])


def test_no_circle_of_modules():
    assert circle({m: set(ours(m)) for m in MODULES}) == []


def test_no_circle_of_rooms():
    rooms: dict[str, set[str]] = {name: set() for name in FLOOR}
    for module in MODULES:
        if room(module):
            rooms[room(module)] |= {room(name) for name in ours(module)} - {room(module), ""}
    assert circle(rooms) == []


def test_a_circle_would_be_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


@pytest.mark.parametrize("module", MODULES)
def test_import_of_heavy_libraries(module):
    if module == "qualm" or room(module) in TORCHLESS:
        for name in everything_below(module):
            heavy = {i.split(".")[0] for i in imported(name, TREES[name])} & {"torch", "transformers"}
            assert not heavy, f"{module} loads {heavy} through {name}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_stand_at_the_top(module):
    for function in nodes(module, ast.FunctionDef, ast.AsyncFunctionDef):
        for inner in ast.walk(function):
            if isinstance(inner, ast.Import | ast.ImportFrom):
                packages = {name.split(".")[0] for name in imported(module, inner)}
                assert packages <= OPTIONAL, f"{at(module, inner)} imports {packages} inside a function"
                assert "MissingExtra" in ast.unparse(function), f"{at(module, inner)} names no extra"


@pytest.mark.parametrize("path", [*FILES.values(), *sorted((ROOT / "tests").rglob("*.py"))], ids=lambda p: p.name)
def test_files_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_short_and_take_few_parameters(module):
    for function in nodes(module, ast.FunctionDef, ast.AsyncFunctionDef):
        lines = function.end_lineno - function.lineno + 1
        assert lines <= MOST_FUNCTION_LINES, f"{at(module, function)} {function.name} has {lines} lines"
        taken = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        taken = [a for a in taken if a.arg not in ("self", "cls")]
        assert len(taken) <= MOST_PARAMETERS, f"{at(module, function)} {function.name} takes {len(taken)} parameters"


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) not in ("cli", "__main__")])
def test_only_the_command_line_prints_and_reads_the_environment(module):
    for node in nodes(module, ast.Name, ast.Attribute):
        assert dotted(node) not in ("print", "sys.stdout", "sys.stderr"), f"{at(module, node)} prints"
        reads = re.fullmatch(r"os\.(environb?|getenvb?)|expandvars", dotted(node))
        assert not reads, f"{at(module, node)} reads the environment"
    for node in nodes(module, ast.ImportFrom):
        taken = {alias.name for alias in node.names} if node.module == "os" else set()
        assert not taken & {"environ", "environb", "getenv", "getenvb"}, f"{at(module, node)} reads the environment"


@pytest.mark.parametrize("module", MODULES)
def test_no_error_is_swallowed(module):
    for handler in nodes(module, ast.ExceptHandler):
        broad = handler.type is None or re.search(r"\b(Exception|BaseException)\b", ast.unparse(handler.type))
        goes_on = not isinstance(handler.body[-1], ast.Raise)
        assert not (broad and goes_on), f"{at(module, handler)} catches everything and goes on"


@pytest.mark.parametrize("module", MODULES)
def test_no_file_and_no_text_can_run_code(module):
    for name in imported(module, TREES[module]):
        assert name.split(".")[0] not in RUNS_CODE, f"{module} imports {name}"
    for call in nodes(module, ast.Call):
        called = dotted(call.func)
        assert called not in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"), at(module, call)
        given = {k.arg: ast.unparse(k.value) for k in call.keywords}
        by_shell = given.get("shell", "False")
        assert by_shell != "True", f"{at(module, call)} runs a shell"
        assert by_shell == "False" or not called.startswith("subprocess."), f"{at(module, call)} may run a shell"
        assert given.get("trust_remote_code", "False") == "False", f"{at(module, call)} trusts remote code"
        if called == "torch.load":
            assert given.get("weights_only") == "True", f"{at(module, call)} may unpickle"
        assert called != "yaml.load", f"{at(module, call)} may build objects"
