"""What the filters say of real text that should be kept: false alarms of scrubber and rules, errors of language.

    python benchmarks/corpus_real.py FOLDER

FOLDER holds qa-xquad/xquad.{en,zh,de}.json.gz and text-sotu/sotu_1790_on.txt.gz.
"""

import gzip
import json
import sys
from pathlib import Path

from qualm.text import personal, quality
from qualm.text.language import identify


def main() -> None:
    folder = Path(sys.argv[1])
    for code in ("en", "zh", "de"):
        articles = json.loads(gzip.decompress((folder / f"qa-xquad/xquad.{code}.json.gz").read_bytes()))["data"]
        parts = [part for article in articles for part in article["paragraphs"]]
        contexts, questions = [p["context"] for p in parts], [q["question"] for p in parts for q in p["qas"]]
        told = [sum(identify(text)[0] == code for text in texts) for texts in (contexts, questions)]
        broken = sum(bool(quality.faults(text, code)) for text in contexts)
        hits = sum(bool(personal.find(text)) for text in contexts)
        print(
            f"{code}: language {told[0]} of {len(contexts)} paragraphs, {told[1]} of {len(questions)} questions; ",
            end="",
        )
        print(f"{broken} break a rule; personal data in {hits}")
    text = gzip.decompress((folder / "text-sotu/sotu_1790_on.txt.gz").read_bytes()).decode()
    print(f"speeches: {len(text)} characters, {len(personal.find(text))} finds")


if __name__ == "__main__":
    main()
