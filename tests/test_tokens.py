"""Tokens: nothing is lost, transformers reads the same ids, and a damaged file is named."""

import json
import random
import subprocess
import sys

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from qualm.errors import InputError, UsageError
from qualm.tokens.detokenizer import WindowDetokenizer
from qualm.tokens.tokenizer import Tokens
from qualm.tokens.train import train_bpe
from tiny import CONTROL, TEMPLATES, TEXTS, templated, tiny_tokens

VARIED = [
    *TEXTS,
    "",
    " ",
    "\n",
    "\t\t x",
    "a\n\n\nb",
    "  1  22",
    "x" * 300,
    "\u0000\u200b\ufeff",
    "né e\u0301",
    "\ufffd",
]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    tiny_tokens().save(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_as_it_was(text):
    tokens = tiny_tokens()
    assert tokens.decode(tokens.encode(text)) == text


@pytest.mark.parametrize("text", VARIED)
def test_transformers_reads_the_same_ids(theirs, text):
    assert theirs.encode(text, add_special_tokens=False) == tiny_tokens().encode(text, special=True)
    assert theirs.decode(theirs.encode(text), skip_special_tokens=True) == tiny_tokens().decode(
        tiny_tokens().encode(text)
    )
    if text:
        assert theirs.encode(text) == tiny_tokens().encode_prompt(text)


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_transformers_reads_the_same_ids_of_any_text(theirs, text):
    assert theirs.encode(text, add_special_tokens=False) == tiny_tokens().encode(text, special=True)


def test_transformers_knows_the_same_special_tokens(theirs):
    ours = tiny_tokens()
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (ours.bos_id, ours.eos_id, ours.pad_id)
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (0, 0, 1)
    assert len(theirs) == ours.vocab_size


@pytest.mark.parametrize("name", list(TEMPLATES))
@pytest.mark.parametrize("generation", [True, False])
def test_transformers_renders_the_same_conversation(tmp_path, name, generation):
    ours = templated(name)
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        messages = [{"role": r, "content": text} for r in ("system", "user", "assistant", "user")]
        rendered = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)
        assert ours.render(messages, generation) == rendered
        ids = theirs.apply_chat_template(messages, add_generation_prompt=generation, return_dict=False)
        assert ours.encode_prompt(messages, generation) == ids


def test_every_digit_is_a_token():
    for ids in (tiny_tokens().encode("2024"), tiny_tokens().encode("x2024")[1:]):
        assert [tiny_tokens().decode([i]) for i in ids] == list("2024")


def test_training_is_deterministic_across_processes_and_threads():
    here = train_bpe(TEXTS * 4, 400, ("<|end|>",)).hash
    code = (
        f"import sys; sys.path.insert(0, {str(__file__.rsplit('/', 1)[0])!r}); from tiny import TEXTS;"
        "from qualm.tokens.train import train_bpe; sys.stdout.write(train_bpe(TEXTS * 4, 400, ('<|end|>',)).hash)"
    )
    for seed, threads in (("1", "1"), ("2", "4")):
        env = {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads}
        assert subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True).stdout == here


def test_hashes_follow_content(tmp_path):
    tokens = tiny_tokens()
    tokens.save(tmp_path)
    again = Tokens.load(tmp_path)
    assert (again.hash, again.template_hash) == (tokens.hash, tokens.template_hash)
    assert templated("chatml").template_hash != tokens.template_hash
    assert train_bpe(TEXTS, 400, CONTROL).hash != tokens.hash
    again.save(tmp_path / "twice")
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        assert (tmp_path / "twice" / file).read_bytes() == (tmp_path / file).read_bytes()


def test_training_refuses_what_cannot_be():
    with pytest.raises(UsageError, match="no room for 256 bytes and 11"):
        train_bpe(TEXTS, 260, CONTROL)
    with pytest.raises(UsageError, match="all different"):
        train_bpe(TEXTS, 400, ("<a>", "<a>"))
    with pytest.raises(InputError, match="no text"):
        train_bpe([], 400)


@pytest.mark.parametrize("context", ["", "The quick", "The quick ", "今天是", "caf", "x\n"])
@pytest.mark.parametrize("continuation", [" brown fox", "brown", "é au lait", "😀", "", "\n\n"])
def test_a_continuation_is_tokenised_with_its_context(context, continuation):
    tokens = tiny_tokens()
    ids, first = tokens.encode_pair(context, continuation)
    whole = [*tokens.start, *tokens.encode(context + continuation)]
    assert ids == whole
    assert (tokens.decode(ids[first:])).endswith(continuation)
    assert not continuation or continuation.endswith(tokens.decode(ids[first + 1 :]).lstrip("\ufffd"))
    assert (first == len(ids)) == (not continuation)


def test_a_token_over_the_border_belongs_to_the_continuation():
    tokens = tiny_tokens()
    assert tokens.decode(tokens.encode("The")) == "The"
    assert len(tokens.encode("The")) == 1
    ids, first = tokens.encode_pair("Th", "e")
    assert tokens.decode(ids[first:]) == "The"


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_an_answer_is_scored_as_the_template_writes_it(name):
    tokens = templated(name)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    ids, first = tokens.encode_pair(question, "Paris")
    written = tokens.encode_prompt([*question, {"role": "assistant", "content": "Paris"}], generation=False)
    assert written[: len(ids)] == ids
    assert tokens.decode(ids[first:]).strip() == "Paris"
    assert tokens.lead == (" " if name in ("default", "instruct") else "")


def test_the_start_of_a_document_stands_before_a_text_without_context():
    assert tiny_tokens().encode_pair("", "The") == ([0, *tiny_tokens().encode("The")], 1)
    assert tiny_tokens().encode_prompt("") == [0]


@pytest.mark.parametrize("window", [False, True])
def test_pieces_are_the_text_wherever_it_is_cut(window):
    tokens = tiny_tokens()
    detokenizers = (windowed(tokens) if window else tokens.detokenizer() for _ in range(10**6))
    for text in TEXTS:
        ids = tokens.encode(text)
        for cut in range(len(ids)):
            one = next(detokenizers)
            pieces = [one.push(i) for i in ids[:cut]]
            assert text.startswith("".join(pieces))
            assert "\ufffd" not in "".join(pieces)
            assert "".join(pieces) + one.close() == tokens.decode(ids[:cut])


def windowed(tokens):
    return WindowDetokenizer(tokens.decode)


def test_pieces_of_nonsense_are_what_decoding_it_at_once_gives():
    tokens, draw = tiny_tokens(), random.Random(0)
    for _ in range(300):
        ids = [draw.randrange(tokens.vocab_size) for _ in range(draw.randrange(40))]
        one = tokens.detokenizer()
        assert "".join(map(one.push, ids)) + one.close() == tokens.decode(ids)


def test_a_long_run_of_broken_bytes_is_not_held_back():
    tokens = tiny_tokens()
    [broken] = [i for i, b in tokens.byte_table.items() if b == b"\x80"]
    for one in (tokens.detokenizer(), windowed(tokens)):
        assert sum(len(one.push(broken)) for _ in range(1000)) > 980


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        Tokens.load(tmp_path)


def test_half_a_surrogate_pair_is_refused():
    for act in (tiny_tokens().encode, lambda t: tiny_tokens().encode_prompt([{"role": "user", "content": t}])):
        with pytest.raises(InputError, match="not valid Unicode at character 2"):
            act("ab\ud83d")


def test_a_damaged_tokenizer_is_named_or_works(tmp_path):
    """Whatever is broken in the file, nothing but an InputError comes up, Rust panics included."""
    tiny_tokens(300).save(tmp_path)
    file, draw = tmp_path / "tokenizer.json", random.Random(0)
    whole = file.read_text()
    refusals = []
    for _ in range(150):
        file.write_text(mutated(whole, draw))
        try:
            Tokens.load(tmp_path).encode_prompt("The 12 😀")
        except InputError as error:
            refusals.append(str(error))
    assert len(refusals) > 50
    assert all("tokenizer" in refusal for refusal in refusals)


def mutated(text: str, draw: random.Random) -> str:
    if draw.random() < 0.3:
        at = draw.randrange(len(text))
        return draw.choice([text[:at], text[:at] + draw.choice('{}[]":,0x') + text[at + 1 :]])
    tree = json.loads(text)
    node, key = tree, draw.choice(list(tree))
    while isinstance(node[key], dict | list) and node[key] and draw.random() < 0.8:
        node = node[key]
        key = draw.choice(list(node)) if isinstance(node, dict) else draw.randrange(len(node))
    if draw.random() < 0.2:
        del node[key]
    else:
        node[key] = draw.choice([None, -1, 2**70, "", "x", [], {}, [[]], True, {"type": "BPE"}, 1.5])
    return json.dumps(tree)


def test_a_panic_of_the_rust_library_is_told(tmp_path, capfd):
    """It panics in use, not at loading, if the start token it is to put before a text is not described."""
    tiny_tokens().save(tmp_path)
    tree = json.loads((tmp_path / "tokenizer.json").read_text())
    tree["post_processor"]["special_tokens"] = {}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree))
    with pytest.raises(InputError, match=r"tokenizer\.json: not a usable tokenizer \(no entry found for key\)"):
        Tokens.load(tmp_path)
    assert "panicked" in capfd.readouterr().err


def test_a_special_token_outside_the_vocabulary_is_refused(tmp_path):
    tiny_tokens().save(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "eos_token": "<|nowhere|>"}))
    with pytest.raises(InputError, match="nowhere"):
        Tokens.load(tmp_path)


def test_a_unigram_vocabulary_takes_spelled_control_tokens_for_text():
    numbered = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((c, -3.0) for c in "a</s>")]
    made = Tokenizer(models.Unigram(numbered, 2, False))
    made.add_special_tokens(["<pad>", "</s>"])
    tokens = Tokens(made, eos="</s>", pad="<pad>")
    assert tokens.encode("a</s>a") == [3, 4, 5, 6, 7, 3]
    assert tokens.encode("a</s>a", special=True) == [3, 1, 3]


def test_a_silent_token_does_not_swallow_the_space_after_it():
    made = Tokenizer(models.Unigram([("<pad>", 0.0), ("<unk>", 0.0), ("▁a", -1.0)], 1, False))
    made.add_special_tokens(["<pad>"])
    made.decoder = decoders.Metaspace()
    detokenizer = Tokens(made, pad="<pad>").detokenizer()
    assert [detokenizer.push(i) for i in (2, 0, 2, *[0] * 20, 2)] == ["a", "", " a", *[""] * 20, " a"]
