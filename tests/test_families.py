"""Every family of the registry is a language model: it is audited without a crash, mended or told why not, saved, and
does each thing that it says it can. No family is named here, so a new file in models/ is tested."""

import dataclasses
import functools
import json
import math

import numpy as np
import pytest
import torch

from encoder_models import wordpiece_tokens
from qualm import registry
from qualm.auditing.prove import compare
from qualm.auditing.report import write_report
from qualm.auditing.run import audit
from qualm.cases import ask
from qualm.config import build, to_dict
from qualm.errors import Unsupported
from qualm.lm.base import PSEUDO, Sampling
from qualm.lm.load import KINDS_OF_LOCAL, load_base
from qualm.lm.local import Local
from qualm.mends.apply import apply
from qualm.mends.quantize import Quantize
from qualm.mends.temper import Temper
from qualm.models.base import Causal, Decoder, Encoder
from qualm.world.base import World
from tiny import tiny_tokens

FAMILIES = registry.names("models")
WORLD = to_dict(World(documents=400))
LENGTH = 512  # tokens that a model sees at once
FEW = 8  # cases a probe
SHORT = Sampling(max_tokens=6)
PAIRS = [("The quick brown", " fox jumps"), ("", "the lazy dog"), (ask("What is it?"), "a fox"), ("The quick", " cat")]
PROMPTS = ["The quick brown fox", ask("What is the capital of France?"), "快速的"]


MENDS = registry.names("mends")
TEXTS = ["He is a nurse and she is a smith.", "The king gave his daughter a boat.", "Omra Telis was born in Vanu."] * 6


@functools.cache
def subject(family: str) -> Local:
    """A small random model of the family, with a tokenizer of its kind."""
    kind = registry.find("models", family)
    tokens = wordpiece_tokens() if issubclass(kind, Encoder) else tiny_tokens()
    ids = {"bos_token_id": tokens.bos_id, "eos_token_id": tokens.eos_id, "pad_token_id": tokens.pad_id}
    model = kind(kind.config_class.sized(1, tokens.vocab_size, LENGTH, **ids))
    model.init_weights(0)
    lm = next(each for each in KINDS_OF_LOCAL if isinstance(model, each.of))
    return lm(model, tokens, name=f"tiny-{family}", about={"world": WORLD})


@pytest.mark.parametrize("family", FAMILIES)
def test_an_audit_gives_a_figure_or_a_reason(family, tmp_path):
    lm = subject(family)
    made = audit(lm, [registry.find("probes", name)(n=FEW) for name in registry.names("probes")])
    for m in made.measurements:
        assert m.reading or m.why, m.name
        if m.reading:
            assert m.probe.needs <= lm.can
            assert all(map(math.isfinite, (m.reading.value, m.reading.low, m.reading.high)))
        elif not m.probe.needs <= lm.can:
            assert m.why.endswith(f"which {lm.name} does not give")
    read = {m.name for m in made.measurements if m.reading}
    assert {"perplexity", "calibration", "memorisation"} <= read or "score" not in lm.can
    assert {"arithmetic", "knowledge", "refusal"} <= read or "generate" not in lm.can
    page = write_report(made, tmp_path).read_text(encoding="utf-8")
    assert lm.card.scoring in page
    assert ("not to be set against" in page) == (lm.card.scoring == PSEUDO)
    assert all(change.verdict == "cannot tell" for change in compare(made, made).changes)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_can_do_what_it_says(family):
    lm = subject(family)
    if "generate" in lm.can:
        answers = lm.generate(PROMPTS, SHORT)
        alone = [lm.generate([prompt], SHORT)[0] for prompt in PROMPTS]
        assert [a.text for a in answers] == [a.text for a in alone]
        assert ["".join(lm.stream(prompt, SHORT)) for prompt in PROMPTS] == [a.text for a in answers]
        drawn = lm.generate(PROMPTS, Sampling(max_tokens=6, temperature=1.0, seed=3))
        assert drawn == lm.generate(PROMPTS, Sampling(max_tokens=6, temperature=1.0, seed=3))
    if "score" in lm.can:
        together = lm.score(PAIRS)
        for pair, scored in zip(PAIRS, together, strict=True):
            assert lm.score([pair])[0].logprobs == pytest.approx(scored.logprobs, abs=1e-3)
            assert len(scored.logprobs) > 0
            assert all(value <= 0 for value in scored.logprobs)
    if "embed" in lm.can:
        vectors = lm.embed(["a fox", "the lazy dog", "a fox"])
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-5)
    if "classify" in lm.can:
        assert all(0 <= p <= 1 for labels in lm.classify(["a fox", "the lazy dog"]) for p in labels.values())
    if "fill" in lm.can:
        assert len(lm.fill([f"a {lm.tokens.mask} fox"], top=3)[0][0]) == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_it_comes_back_from_disk(family, tmp_path):
    lm = subject(family)
    lm.save(tmp_path / "model")
    again = load_base(tmp_path / "model")
    assert type(again) is type(lm)
    assert (again.can, again.card.hash, again.context) == (lm.can, lm.card.hash, lm.context)
    if "score" in lm.can:
        assert again.score(PAIRS) == lm.score(PAIRS)
    if "generate" in lm.can:
        assert again.generate(PROMPTS, SHORT) == lm.generate(PROMPTS, SHORT)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("library")
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return folder


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", MENDS)
def test_a_mend_applies_or_says_why_not(name, family, library):
    lm, kind = subject(family), registry.find("mends", name)
    given = {"docs": library, "steps": 2, "batch": 2, "length": 32, "temperature": 2.0, "threshold": -1.0}
    mend = build(kind, {k: v for k, v in given.items() if k in {f.name for f in dataclasses.fields(kind)}})
    before = lm.card
    causal, decoder = isinstance(lm.model, Causal), isinstance(lm.model, Decoder)
    if not kind.needs <= lm.can or (name == "temper" and not causal) or (name == "counterfactual" and not decoder):
        with pytest.raises(Unsupported, match=f"which {lm.name} does not give|not for a {before.family} model"):
            apply(lm, mend)
        return
    mended = apply(lm, mend)
    assert lm.card == before
    assert mended.can <= lm.can
    if "score" in mended.can:
        assert all(math.isfinite(scored.total) for scored in mended.score(PAIRS))
    if "generate" in mended.can:
        assert len(mended.generate(PROMPTS, SHORT)) == len(PROMPTS)
    if "classify" in mended.can:
        assert len(mended.classify(["a fox"])) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_tempered_logits_are_divided(family):
    lm = subject(family)
    if not isinstance(lm.model, Causal):
        with pytest.raises(Unsupported, match="no logits of a next token"):
            Temper(2.0)(lm)
        return
    ids = torch.tensor([[1, 2, 3, 4]])
    given = (ids,) if isinstance(lm.model, Decoder) else (ids, ids)
    with torch.inference_mode():
        torch.testing.assert_close(Temper(2.0)(lm).model(*given) * 2, lm.model(*given), atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_8_bits_it_answers_nearly_alike_and_comes_back(family, tmp_path):
    lm = subject(family)
    small = Quantize()(lm)
    assert small.card.bytes < lm.card.bytes  # recurrent weights stay as they are
    small.save(tmp_path / "small")
    again = load_base(tmp_path / "small")
    assert again.card.hash == small.card.hash
    if "score" in lm.can:
        assert again.score(PAIRS) == small.score(PAIRS)
        assert small.score(PAIRS)[1].total == pytest.approx(lm.score(PAIRS)[1].total, rel=0.05)
