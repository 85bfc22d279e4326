"""Documents are read whole or refused by line, split by content, and packed so that bits per byte is exact."""

import json
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qualm.corpus import Document, load, pack, packing, read, split
from qualm.corpus.formats.text import SECTION
from qualm.errors import InputError, UsageError
from qualm.tokens.train import train_bpe
from qualm.training.data import IGNORE, TokenRows
from qualm.training.reading import bits_per_byte, total_nats

CHAT = ({"role": "user", "content": "Where does Bilo live?"}, {"role": "assistant", "content": "In Sundra. 住在那里。"})


@pytest.fixture(scope="module")
def tokens():
    return train_bpe(["the little owl sat in the old tree and sang to the moon " * 20], 300)


def documents(count: int = 200) -> list[Document]:
    return [Document(id=str(i), text=f"the owl number {i} sat in tree {i * 7 % 13}, é") for i in range(count)]


# -- reading


def test_a_folder_is_read_in_order_and_other_kinds_are_left_out(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "one.txt").write_text("first text\n\nits second paragraph\n")
    (tmp_path / "a.jsonl").write_text('{"text": "x", "id": 7, "label": 1}\n\n' + json.dumps({"messages": CHAT}) + "\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.txt").write_text("not read")
    found = list(read(tmp_path))
    assert [d.id for d in found] == ["7", "a.jsonl:3", "b/one.txt:1"]
    assert [d.text for d in found] == ["x", "", "first text\n\nits second paragraph\n"]
    assert found[0].meta == {"label": 1}
    assert found[1].messages == CHAT
    assert found[1].source == "a.jsonl:3"


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfhello")
    assert [d.text for d in read(tmp_path / "a.txt")] == ["hello"]


@settings(max_examples=30, deadline=None)
@given(lines=st.lists(st.sampled_from(["a" * 900, "", "b" * 4000, "\t", "中" * 500]), max_size=150))
def test_the_parts_of_a_long_text_are_the_file_again(lines, tmp_path_factory):
    text = "start\n" + "\n".join(lines)
    path = tmp_path_factory.mktemp("long") / "book.txt"
    path.write_text(text, encoding="utf-8", newline="")
    parts = [d.text for d in read(path)]
    joined = "".join(parts)
    assert text.startswith(joined)
    assert not text[len(joined) :].strip()  # a blank rest is no document
    assert all(len(p.encode()) <= 2 * SECTION + 4001 for p in parts)
    if len(text.encode()) > 4 * SECTION:
        assert len(parts) > 1


BAD_LINES = [
    b'{"text": "ok"}\n{"text": "cut',
    b'{"text": "ok"}\nnot json\n',
    b'{"text": "ok"}\n["text"]\n',
    b'{"text": "ok"}\n{"text": 5}\n',
    b'{"text": "ok"}\n{"other": "x"}\n',
    b'{"text": "ok"}\n{"text": "x", "messages": []}\n',
    b'{"text": "ok"}\n{"messages": [{"role": "user"}]}\n',
    b'{"text": "ok"}\n{"messages": "hi"}\n',
    b'{"text": "ok"}\n{"text": "\xff\xfe"}\n',
    b'{"text": "ok"}\n{"text": "\\ud800"}\n',
    b'{"text": "ok"}\n' + b"[" * 100_000 + b"\n",
]


@pytest.mark.parametrize("content", BAD_LINES)
def test_a_malformed_record_is_refused_with_file_and_line(content, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        list(read(path))
    assert error.value.where == f"{path}:2"
    assert error.value.exit_code == 4
    assert len(str(error.value)) < 400


def test_bad_utf8_in_a_text_names_the_line(tmp_path):
    path = tmp_path / "bad.txt"
    path.write_bytes(b"fine\nfine\nfin\xe9\n")
    with pytest.raises(InputError, match="not UTF-8") as error:
        list(read(path))
    assert error.value.where == f"{path}:3"


@pytest.mark.parametrize("name", ["nothing.txt", "empty.txt", "blank.jsonl", "folder", "table.csv"])
def test_what_holds_no_text_is_refused(name, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.jsonl").write_text('\n{"text": " "}\n')
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.csv").write_text("a,b")
    (tmp_path / "table.csv").write_text("a,b")
    with pytest.raises(InputError) as error:
        list(read(tmp_path / name))
    assert name in str(error.value)


# -- splitting


def test_the_split_is_by_content_so_duplicates_fall_on_one_side():
    docs = documents(1000) + [Document(id=f"again {d.id}", text=d.text) for d in documents(1000)]
    train, held = split(docs, 0.1)
    assert not {d.text for d in train} & {d.text for d in held}
    assert len(train) + len(held) == len(docs)
    assert 0.07 < len(held) / len(docs) < 0.13


def test_no_document_moves_when_others_are_added():
    before = {d.id for d in split(documents(500), 0.1)[1]}
    after = {d.id for d in split(documents(900), 0.1)[1]}
    assert before == {i for i in after if int(i) < 500}


def test_roles_count_as_content():
    swapped = tuple({**m, "role": "user"} for m in CHAT)
    assert Document("a", messages=CHAT).key != Document("a", messages=swapped).key


@pytest.mark.parametrize("held_out", [0.001, 0.5, 0.999])
def test_either_side_has_at_least_one_document(held_out):
    train, held = split(documents(2), held_out)
    assert len(train) == len(held) == 1


def test_nothing_to_part_is_refused():
    assert split(documents(1), 0.0)[1] == []
    with pytest.raises(InputError, match="two distinct"):
        split(documents(1) * 3, 0.1)
    with pytest.raises(UsageError, match="held_out"):
        split(documents(3), 1.0)


# -- packing


def test_packed_documents_decode_to_what_was_read(tokens, tmp_path):
    docs = [*documents(30), Document("chat", messages=CHAT)]
    packed = pack(docs, tokens, tmp_path)
    assert packed.ids[0] == tokens.eos_id
    starts = [1, *packed.ends[:-1]]
    texts = [tokens.decode(packed.ids[a:b]) for a, b in zip(starts, packed.ends, strict=True)]
    assert texts[:-1] == [d.text for d in docs[:-1]]
    assert texts[-1] == "Where does Bilo live?In Sundra. 住在那里。"  # the roles are control tokens
    assert all(packed.ids[end - 1] == tokens.eos_id for end in packed.ends)
    assert not any(packed.ids[a:b][-2] == tokens.eos_id for a, b in zip(starts, packed.ends, strict=True))
    assert packed.bytes == sum(len(c.encode()) for d in docs for c in d.contents)
    assert packed.tokens == len(packed.ids) - 1
    assert isinstance(packed.ids, np.memmap)
    assert packed.ids.dtype == np.uint16


def test_every_token_is_predicted_once_whatever_the_length(tokens, tmp_path):
    packed = pack(documents(20), tokens, tmp_path)
    for length in (1, 7, 64, packed.tokens, packed.tokens + 5):
        every = np.arange(packed.rows(length))
        rows = TokenRows(packed, length).batch(every, every)
        targets = rows["labels"].flatten()
        assert targets[targets != IGNORE].tolist() == packed.ids[1:].tolist()
        inputs = rows["ids"].flatten()[targets != IGNORE]
        assert inputs.tolist() == packed.ids[:-1].tolist()


class Unigram(torch.nn.Module):
    """Knows the probabilities of single tokens only, so its nats can be worked out by hand."""

    linear_head = ""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def hidden(self, ids):
        return ids[..., None].float()

    def head(self, hidden):
        return self.logits.expand(*hidden.shape[:-1], -1)


def test_bits_per_byte_is_exact_and_independent_of_the_cut(tokens, tmp_path):
    packed = pack(documents(40), tokens, tmp_path)
    logits = torch.randn(tokens.vocab_size, generator=torch.Generator().manual_seed(0))
    model = Unigram(logits)
    logp = torch.log_softmax(logits.double(), 0)
    nats = -sum(float(logp[int(i)]) for i in packed.ids[1:])
    for length, batch in ((5, 1), (64, 3), (10_000, 2)):
        assert total_nats(model, packed, length, batch) == pytest.approx(nats, rel=1e-6)
        assert bits_per_byte(model, packed, length) == pytest.approx(nats / math.log(2) / packed.bytes, rel=1e-6)


def test_the_head_of_a_packing_is_whole_documents(tokens, tmp_path):
    packed = pack(documents(40), tokens, tmp_path)
    for wanted in (1, 50, 200, 10**9):
        head = packed.head(wanted)
        assert head.tokens >= min(wanted, packed.tokens)
        assert head.ids[-1] == tokens.eos_id
        assert head.bytes == sum(d.bytes for d in documents(40)[: len(head.ends)])
        fewer = len(head.ends) - 1
        assert fewer == 0 or packed.ends[fewer - 1] - 1 < wanted
    assert packed.head(50).identity != packed.identity


def test_a_packing_is_reused_only_if_it_is_whole_and_of_the_same_making(tokens, tmp_path, monkeypatch):
    pack(documents(20), tokens, tmp_path)
    wrote, really = [], packing.finish
    monkeypatch.setattr(packing, "finish", lambda *a: wrote.append(a) or really(*a))
    ids = pack(documents(20), tokens, tmp_path).ids.tolist()
    assert not wrote
    pack(documents(21), tokens, tmp_path)
    assert len(wrote) == 1
    pack(documents(20), tokens, tmp_path)
    for name, place in (("ids-00000.bin", 9), ("documents-00000.npy", -3), ("manifest.json", 1)):
        content = bytearray((tmp_path / name).read_bytes())
        content[place] ^= 1
        (tmp_path / name).write_bytes(content)
        wrote.clear()
        assert pack(documents(20), tokens, tmp_path).ids.tolist() == ids
        assert wrote


def test_a_damaged_packing_is_refused(tokens, tmp_path):
    pack(documents(5), tokens, tmp_path)
    (tmp_path / "ids-00000.bin").write_bytes((tmp_path / "ids-00000.bin").read_bytes()[:-2])
    with pytest.raises(InputError, match="cut short"):
        load(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "nowhere")


def test_an_empty_corpus_is_refused(tokens, tmp_path):
    with pytest.raises(InputError, match="no documents"):
        pack([], tokens, tmp_path)


def test_the_order_of_documents_and_the_template_make_another_packing(tokens, tmp_path):
    docs = documents(5)
    shuffled = random.Random(1).sample(docs, 5)
    assert pack(docs, tokens, tmp_path / "a").identity != pack(shuffled, tokens, tmp_path / "b").identity
