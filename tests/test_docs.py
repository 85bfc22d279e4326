"""The Python of the documents is run: all blocks of a page in order, as one module, in a folder of its own.

A block that begins with a file's name ("# mpt.py") is that file, which the others import; a TOML block with entry
points makes a package of it, as if it were installed.
"""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

import test_contract
import test_training_size
from parity_checks import ALLOWED, measured, pair_of
from qualm import registry
from qualm.errors import UsageError
from test_readme import PAGES, ROOT, blocks

NAMED = re.compile(r"# (\w+\.py)\n")
NEW = "docs/models/write_a_model.md"


@pytest.fixture
def laid_out(tmp_path, monkeypatch):
    """`laid_out(page)` writes the files of a page into an empty folder and gives the code that is left."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def lay(page: str) -> str:
        code = blocks(page, "python")
        for body in code:
            if found := NAMED.match(body):
                Path(found[1]).write_text(body, encoding="utf-8")
        for body in blocks(page, "toml"):
            if "entry-points" in body:
                install(body, Path("page-1.0.dist-info"))
        return "\n".join(body for body in code if not NAMED.match(body))

    yield lay
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def install(toml: str, folder: Path) -> None:
    """The entry points of a pyproject.toml as an installed package has them."""
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: page\nVersion: 1.0\n")
    groups = re.sub(r'\[project\.entry-points\."(.+)"\]', r"[\1]", toml)
    (folder / "entry_points.txt").write_text(groups.replace('"', ""))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python") and page != "docs/design.md"])
def test_the_python_runs(page, laid_out, tmp_path, monkeypatch):
    name = "page_" + re.sub(r"\W", "_", page)
    path = tmp_path / f"{name}.py"
    path.write_text(laid_out(page), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)


@pytest.fixture
def family(laid_out):
    """The name of the family that the page adds, installed."""
    laid_out(NEW)
    return "mpt"


def test_a_new_family_keeps_to_the_contract(family, tmp_path):
    test_contract.test_a_model_learns_and_comes_back_from_disk(family, tmp_path / "model")
    test_contract.test_the_future_changes_nothing(family)


def test_a_new_family_is_turned_by_the_dial(family):
    test_training_size.test_the_dial_is_part_of_every_family(family)
    test_training_size.test_a_config_counts_the_weights_of_its_model(family, 2)
    test_training_size.test_a_number_gives_the_depth_whose_count_is_nearest(family, 10e6)
    test_training_size.test_more_depth_is_more_weights_and_more_work(family)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_a_new_family_counts_its_work(family):
    test_training_size.test_the_work_of_a_forward_pass_is_what_torch_counts(family)


def test_a_new_family_computes_what_transformers_computes(family, tmp_path):
    """By the one row that the page gives."""
    row = next(body for body in blocks(NEW, "python") if "ROW = " in body)
    given: dict = {}
    exec(row, given)
    found = measured(pair_of(given["ROW"], tmp_path / "pair"))
    assert not {check: value for check, value in found.items() if value is not None and not value <= ALLOWED}


def test_a_config_of_a_new_family_refuses_other_mathematics(family):
    from qualm.errors import InputError

    config = registry.find("models", family).config_class
    raw = config.sized(1, 97, 16).to_hf()
    assert config.from_hf(raw).to_hf() == raw
    for change in ({"no_bias": False}, {"attn_config": {"qk_ln": True}}, {"n_heads": 3}, {"rope_theta": 1e4}):
        with pytest.raises(InputError, match=next(iter(change))):
            config.from_hf({**raw, **change})


def test_the_family_is_gone_with_its_package():
    assert "mpt" not in registry.names("models")
    with pytest.raises(UsageError):
        registry.find("models", "mpt")


def test_every_page_is_in_the_index():
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    pages = [page.removeprefix("docs/") for page in PAGES if page.startswith("docs/") and page != "docs/index.md"]
    assert [page for page in pages if f"]({page})" not in index] == []
