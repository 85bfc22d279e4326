"""One sound file of each format that documents are read from, made from seeds, and ways to spoil it."""

import bz2
import csv
import gzip
import io
import json
import random
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import duckdb
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import write_po
from backports import zstd
from docx import Document as Word
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

TEXTS = (
    "The ferry left late.",
    "Nobody saw the captain.",
    "他昨天去了北京，大家都不知道。",
    "A quiet evening, after all.",
)


def text(texts: Sequence[str]) -> bytes:
    return "\n\n".join(texts).encode()


def jsonl(texts: Sequence[str]) -> bytes:
    return "".join(json.dumps({"id": str(i), "text": each}) + "\n" for i, each in enumerate(texts)).encode()


def csv_(texts: Sequence[str], dialect: str = "excel") -> bytes:
    made = io.StringIO()
    writer = csv.writer(made, dialect)
    writer.writerow(("id", "text"))
    writer.writerows((i, f'{each}, "as they said"') for i, each in enumerate(texts))
    return made.getvalue().encode()


def parquet(texts: Sequence[str], folder: Path) -> bytes:
    path = folder / "made.parquet"
    with duckdb.connect(":memory:") as database:
        database.execute("create table t(id integer, text varchar)")
        database.executemany("insert into t values (?, ?)", [(i, each) for i, each in enumerate(texts)])
        database.execute(f"copy t to '{path}' (format parquet)")
    made = path.read_bytes()
    path.unlink()
    return made


def html(texts: Sequence[str]) -> bytes:
    body = "".join(f"<p>{escape(each)}</p>" for each in texts)
    menu = "<nav><ul><li><a href='/'>Home</a></li><li><a href='/about'>About</a></li></ul></nav>"
    return f"<html><head><title>A page</title></head><body>{menu}<article>{body}</article></body></html>".encode()


def pdf(texts: Sequence[str]) -> bytes:
    writer = PdfWriter()
    for each in texts:
        page = writer.add_blank_page(300, 300)
        font = DictionaryObject({NameObject("/Type"): NameObject("/Font"), NameObject("/Subtype"): NameObject("/Type1"),
                                 NameObject("/BaseFont"): NameObject("/Helvetica")})  # fmt: skip
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): writer._add_object(font)})}
        )
        stream = DecodedStreamObject()
        shown = each.encode("latin-1", "ignore").decode("latin-1")
        stream.set_data(f"BT /F1 12 Tf 20 200 Td ({shown}) Tj ET".encode("latin-1"))
        page[NameObject("/Contents")] = writer._add_object(stream)
    made = io.BytesIO()
    writer.write(made)
    return made.getvalue()


def docx(texts: Sequence[str]) -> bytes:
    word, made = Word(), io.BytesIO()
    for each in texts:
        word.add_paragraph(each)
    table = word.add_table(rows=1, cols=2)
    table.rows[0].cells[0].text, table.rows[0].cells[1].text = "left", "right"
    word.save(made)
    return made.getvalue()


def zip_(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


def epub(texts: Sequence[str]) -> bytes:
    items = "".join(f'<item id="c{i}" href="c{i}.xhtml"/>' for i in range(len(texts)))
    spine = "".join(f'<itemref idref="c{i}"/>' for i in range(len(texts)))
    package = f"<package><metadata><title>A book</title></metadata><manifest>{items}</manifest><spine>{spine}</spine>"
    root = '<container><rootfiles><rootfile full-path="text/book.opf"/></rootfiles></container>'
    chapters = {f"text/c{i}.xhtml": html([each]) for i, each in enumerate(texts)}
    return zip_({"META-INF/container.xml": root.encode(), "text/book.opf": f"{package}</package>".encode(), **chapters})


def warc(texts: Sequence[str]) -> bytes:
    parts = []
    for i, each in enumerate(texts):
        http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + html([each])
        head = (f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:{i:032x}>\r\n"
                f"WARC-Target-URI: http://example.org/{i}\r\nWARC-Date: 2024-01-01T00:00:00Z\r\n"
                f"Content-Type: application/http;msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n")  # fmt: skip
        parts.append(head.encode() + http + b"\r\n\r\n")
    return b"".join(parts)


def _catalog(texts: Sequence[str]) -> Catalog:
    catalog = Catalog(locale="fr")
    for i, each in enumerate(texts):
        catalog.add(each, f"Phrase {i}: {each}")
    return catalog


def po(texts: Sequence[str]) -> bytes:
    made = io.BytesIO()
    write_po(made, _catalog(texts))
    return made.getvalue()


def mo(texts: Sequence[str]) -> bytes:
    made = io.BytesIO()
    write_mo(made, _catalog(texts))
    return made.getvalue()


def tmx(texts: Sequence[str]) -> bytes:
    units = "".join(
        f'<tu><tuv xml:lang="en"><seg>{escape(each)}</seg></tuv><tuv xml:lang="de"><seg>Satz {i}</seg></tuv></tu>'
        for i, each in enumerate(texts)
    )
    return f'<?xml version="1.0"?><tmx version="1.4"><header srclang="en"/><body>{units}</body></tmx>'.encode()


def makers(folder: Path) -> dict[str, Callable[[Sequence[str]], bytes]]:
    """Ending -> what makes a sound file of it; `folder` is for what must be written to be made."""
    return {
        ".txt": text,
        ".md": text,
        ".jsonl": jsonl,
        ".csv": csv_,
        ".tsv": lambda texts: csv_(texts, "excel-tab"),
        ".parquet": lambda texts: parquet(texts, folder),
        ".html": html,
        ".pdf": pdf,
        ".docx": docx,
        ".epub": epub,
        ".warc": warc,
        ".po": po,
        ".mo": mo,
        ".tmx": tmx,
        ".jsonl.gz": lambda texts: gzip.compress(jsonl(texts), mtime=0),
        ".jsonl.zst": lambda texts: zstd.compress(jsonl(texts)),
        ".jsonl.bz2": lambda texts: bz2.compress(jsonl(texts)),
        ".warc.gz": lambda texts: gzip.compress(warc(texts), mtime=0),
        ".zip": lambda texts: zip_({"a.jsonl": jsonl(texts), "b/c.html": html(texts), "picture.png": b"\x89PNG"}),
    }


# --- ways to spoil a file


def truncated(raw: bytes, rng: random.Random) -> bytes:
    return raw[: rng.randrange(len(raw))]


def flipped(raw: bytes, rng: random.Random) -> bytes:
    made = bytearray(raw)
    for _ in range(rng.choice((1, 4, 30))):
        made[rng.randrange(len(made))] = rng.randrange(256)
    return bytes(made)


def noise(raw: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 100, 5000)))


def headed_noise(raw: bytes, rng: random.Random) -> bytes:
    return raw[: rng.randrange(1, 64)] + rng.randbytes(3000)


def spliced(raw: bytes, rng: random.Random) -> bytes:
    a, b = sorted(rng.randrange(len(raw)) for _ in range(2))
    return raw[:b] + raw[a:] * rng.choice((1, 2)) + raw[:a]


def swollen(raw: bytes, rng: random.Random) -> bytes:
    """Numbers in it made large or odd: sizes, counts, offsets."""
    made = bytearray(raw)
    for _ in range(3):
        at = rng.randrange(max(len(made) - 8, 1))
        made[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"9999"))
    return bytes(made)


def recoded(raw: bytes, rng: random.Random) -> bytes:
    """In another encoding than it should be, if it is text at all."""
    return raw.decode("utf-8", "replace").encode(
        rng.choice(("utf-16", "gb18030", "cp1252", "utf-32", "utf-7")), "replace"
    )


def nested(raw: bytes, rng: random.Random) -> bytes:
    """Deep brackets, of JSON or of markup."""
    depth = rng.choice((1000, 100_000))
    return rng.choice((b"[" * depth, b'{"text":' * depth, b"<div>" * depth, b"<seg><tu>" * depth, b"(" * depth)) + raw


WAYS = (truncated, flipped, noise, headed_noise, spliced, swollen, recoded, nested)
