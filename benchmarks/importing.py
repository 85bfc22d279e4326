"""What imported models give, next to what their own programs would give of the same files.

    QUALM_SHARED=DIR python benchmarks/importing.py

Character models: bits a character of 4,000 characters of their own training text, with a 95 % interval (bootstrap over
blocks of 100 characters). All of them: the largest difference of a logit or probability from the formulas that
`tests/foreign.py` writes down for the foreign program, in double precision; and how many parameters there are.
"""

import gzip
import json
import math
import os
import re
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from foreign import textgenrnn_logits, toxic_probabilities
from qualm.lm.load import load_base

BOOKS = {
    "shakespeare": "text-tinyshakespeare/tinyshakespeare.txt.gz",
    "charlotte_bronte": "text-ml5-books/bronte.txt.gz",
    "darwin": "text-ml5-books/darwin.txt.gz",
    "zora_neale_hurston": "text-ml5-books/zora_neale_hurston.txt",
}
SENTENCES = (
    "You are a stupid idiot and I hate you",
    "Thank you for the kind help with the article",
    "as a gay man I love cooking",
    "as a man I love cooking",
    "The weather is lovely today",
)
BLOCK, DRAWS = 100, 10_000


def main() -> None:
    shared, cache = Path(os.environ["QUALM_SHARED"]), Path(tempfile.mkdtemp())
    torch.set_num_threads(1)
    for name, book in BOOKS.items():
        lm = load_base(shared / "weights-ml5-charrnn" / name, cache=cache)
        bits, low, high = bits_per_character(lm, text_of(shared / book))
        print(f"{name:20} {lm.card.parameters:>9,} parameters  {bits:.3f} bits a character [{low:.3f}, {high:.3f}]")
    textgenrnn(shared / "weights-textgenrnn", cache)
    toxicity(shared / "weights-toxic-bilstm", cache)


def text_of(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()[200_000:204_001]


def bits_per_character(lm, text: str) -> tuple[float, float, float]:
    text = lm.tokens.decode(lm.tokens.encode(text))  # without the characters it does not have
    (scored,) = lm.score([(text[0], text[1:])])
    bits = -np.array(scored.logprobs) / math.log(2)
    blocks = np.array([bits[i : i + BLOCK].mean() for i in range(0, len(bits) - BLOCK + 1, BLOCK)])
    draws = np.random.default_rng(0).choice(blocks, (DRAWS, len(blocks))).mean(1)
    return float(bits.mean()), *np.quantile(draws, (0.025, 0.975)).tolist()


def textgenrnn(folder: Path, cache: Path) -> None:
    lm = load_base(folder, cache=cache)
    parts: dict[str, np.ndarray] = {}
    with h5py.File(folder / "textgenrnn_weights.hdf5") as file:
        file.visititems(lambda name, thing: parts.update({name: thing[()]} if isinstance(thing, h5py.Dataset) else {}))
    ids = lm.tokens.encode_prompt("The best thing about the new version of the game: 10 new characters, for free!")
    wanted = np.array([textgenrnn_logits(ids[: n + 1], parts) for n in range(len(ids))])
    with torch.no_grad():
        single = lm.model(torch.tensor([ids]))[0].numpy()
        double = lm.model.double()(torch.tensor([ids]))[0].numpy()
    print(f"textgenrnn           {lm.card.parameters:>9,} parameters", end="  ")
    print(f"logits up to {np.abs(wanted).max():.0f} differ by {np.abs(double - wanted).max():.1e}", end="")
    print(f", in single precision by {np.abs(single - wanted).max():.1e}")


def toxicity(folder: Path, cache: Path) -> None:
    lm = load_base(folder, cache=cache)
    words = json.loads((folder / "vocab.json").read_text())
    with np.load(folder / "weights.npz", allow_pickle=False) as file:
        parts = {name: file[name] for name in file.files}
    filters = re.compile(r'[!"#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~\t\n]')
    print(f"toxicity BiLSTM      {lm.card.parameters:>9,} parameters")
    for sentence, found in zip(SENTENCES, lm.classify(SENTENCES), strict=True):
        ids = [words[w] for w in filters.sub(" ", sentence.lower()).split() if w in words]
        difference = np.abs(np.array(list(found.values())) - toxic_probabilities(ids, parts)).max()
        print(f"  toxic {found['toxic']:.3f}  differs by {difference:.1e}  {sentence}")


if __name__ == "__main__":
    main()
