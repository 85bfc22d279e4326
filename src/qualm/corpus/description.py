"""A description as one page that loads nothing, in English and Chinese, in light and in dark, and as JSON beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qualm import __version__
from qualm.corpus.sankey import sankey
from qualm.files import write_json, write_text
from qualm.page.figures import many, plain, size
from qualm.page.markup import Child, Html, both, h
from qualm.page.sheet import LANGUAGES, SWITCH, THEME, Sheet, document

OWN = str(__package__)
WORDS = {
    **{"collect": "收集", "clean": "清洗", "dedup": "去重", "filter": "过滤", "scrub": "去除个人信息", "split": "划分"},
    **{
        "keep": "自选",
        "augment": "增广",
        "balance": "配比",
        "exact duplicate": "完全重复",
        "near duplicate": "近似重复",
    },
    **{"in a test set": "与测试集重合", "language": "语言", "rules": "规则", "length": "长度", "toxic": "辱骂或威胁"},
    **{"classifier": "分类器", "licence": "许可", "predicate": "自定条件", "blank": "空白", "weight": "按配比舍去"},
    **{"nothing but boilerplate": "只有套话", "every part stood before": "各段均已出现过"},
}
_ROW, _WIDE = 26, 360  # of bars, in their own units

Description = Mapping[str, Any]
Two = tuple[str, str]  # English and Chinese


def write(told: Description, path: Path) -> list[Path]:
    """`path` with .html and with .json; returns both."""
    base = path.with_suffix("") if path.suffix in (".html", ".json") else path
    page, twin = base.with_name(f"{base.name}.html"), base.with_name(f"{base.name}.json")
    sheet = Sheet(told["source"], f"qualm {__version__}", (THEME, LANGUAGES, (OWN, "description.css")), (SWITCH,))
    write_text(page, document(sheet, _body(told)))
    write_json(twin, told)
    return [page, twin]


def _body(told: Description) -> list[Html]:
    switches = [
        h("button", {"type": "button", "class": "language", "hidden": True}, both("中文", "English")),
        h("button", {"type": "button", "class": "theme", "hidden": True, "aria-label": "Light or dark"}, h("span")),
    ]
    parts = [_flow(told), _dropped(told), _holds(told), _topics(told), _risks(told)]
    return [
        h("nav", {}, h("a", {"class": "brand", "href": "#main"}, "Qualm"), h("ul"), switches),
        h("main", {"id": "main"}, _head(told), parts),
        h("footer", {}, h("p", {}, f"Qualm {__version__} · {told['schema']}")),
    ]


def _section(name: str, title: Two, said: Two, *children: Child) -> Html:
    heading = h("h2", {"id": f"{name}-title"}, both(*title))
    return h(
        "section",
        {"id": name, "aria-labelledby": f"{name}-title"},
        heading,
        h("p", {"class": "said"}, both(*said)),
        children,
    )


def _head(told: Description) -> Html:
    whole, words = told["size"], told["words"]
    main = next(iter(told["languages"]), "und")
    held = size(whole["bytes"]).replace(" ", "\N{NO-BREAK SPACE}")
    share = told["languages"].get(main, 0) / max(told["sample"], 1)
    shown = [
        (("documents", "文档"), f"{whole['documents']:,}"),
        (("of text", "文本"), size(whole["bytes"])),
        (("words a document", "每篇词数"), plain(words["mean"])),
        (("bits a word", "每词比特"), plain(words["entropy"])),
        (
            ("Vendi score, at most the texts", "Vendi 分数（上限为篇数）"),
            f"{plain(told['vendi']['score'])} / {told['vendi']['of']}",
        ),
    ]
    sentence = both(
        f"{whole['documents']:,} documents, {held}; {share:.0%} of them in {main}.",
        f"{whole['documents']:,} 篇文档，{held}；其中 {share:.0%} 为 {main}。",
    )
    facts = [h("div", {}, h("dt", {}, both(*name)), h("dd", {}, value)) for name, value in shown]
    return h(
        "header",
        {"class": "top"},
        h("h1", {}, told["source"]),
        h("p", {"class": "sentence"}, sentence),
        h("dl", {"class": "facts glance"}, facts),
    )


def _flow(told: Description) -> Html | None:
    drawing = sankey(told["flow"], WORDS)
    if drawing is None:
        return None
    box = h("div", {"class": "flow", "tabindex": 0, "role": "region", "aria-label": "what went where"}, drawing)
    collected = next((row for row in told["flow"] if row["step"] == "collect"), None)
    said = ("Documents through the steps, and what left them.", "文档经过各步的去向。")
    if collected:
        files, skipped, bad = (f"{collected[name]:,}" for name in ("files", "skipped", "bad"))
        said = (
            f"{said[0]} Of {files} files, {skipped} were skipped or cut short; records that could not be used: {bad}.",
            f"{said[1]}共 {files} 个文件，{skipped} 个被跳过或未读完；不可用的记录：{bad}。",
        )
    changed = [
        h(
            "tr",
            {},
            h("th", {"scope": "row"}, both(row["step"], WORDS.get(row["step"], row["step"]))),
            h("td", {}, text),
        )
        for row in told["flow"]
        if (text := ", ".join(f"{count:,} {name}" for name, count in row.get("changed", {}).items()))
    ]
    heads = h(
        "tr",
        {},
        [h("th", {"scope": "col"}, both(*name)) for name in (("step", "步骤"), ("places changed", "改动之处"))],
    )
    table = h(
        "table",
        {"class": "small"},
        h("caption", {}, both("places changed", "改动之处")),
        h("thead", {}, heads),
        h("tbody", {}, changed),
    )
    return _section("flow", ("What went where", "去向"), said, box, table if changed else None)


def _dropped(told: Description) -> Html | None:
    if not told["dropped"]:
        return None
    rows = []
    for row in sorted(told["dropped"], key=lambda row: -row["documents"]):
        name = both(row["reason"], WORDS.get(row["reason"], row["reason"]))
        step = h("small", {}, both(row["step"], WORDS.get(row["step"], row["step"])), f" · {row['documents']:,}")
        shown = [
            h("li", {}, each["excerpt"], h("small", {}, " · ".join(filter(None, (each["id"], each["detail"])))))
            for each in row["examples"]
        ]
        rows.append(h("details", {}, h("summary", {}, h("b", {}, name), step), h("ol", {}, shown)))
    said = ("Examples of every reason, without personal data.", "各种原因的示例，个人信息已去除。")
    return _section("dropped", ("What was dropped", "舍弃的文档"), said, h("div", {"class": "reasons"}, rows))


def _holds(told: Description) -> Html:
    whole, words, sample = told["size"], told["words"], told["sample"]
    languages = [((name, name), count, f"{count / sample:.1%}") for name, count in list(told["languages"].items())[:10]]
    lengths = [((size(start), size(start)), count, f"{count:,}") for start, count in whole["lengths"]]
    sources = [((name, name), count, f"{count:,}") for name, count in whole["sources"].items()]
    figures = [
        _bars(("Languages, of the sample", "语言（样本）"), languages),
        _bars(("Length of a document, from", "文档长度（起）"), lengths),
        _bars(("Sources", "来源"), sources),
    ]
    ratio = plain(words["type_token"]) if words["type_token"] is not None else "–"
    facts = [
        (("exact copies", "完全重复"), f"{whole['exact_copies']:,}"),
        (("near copies, of the sample", "近似重复（样本）"), f"{told['near_copies']:,}"),
        (("different words", "不同的词"), f"{words['different']:,}"),
        (("type-token ratio of 1,000 words", "千词型例比"), ratio),
        (("documents in the sample", "样本文档"), f"{sample:,}"),
    ]
    shown = [h("div", {}, h("dt", {}, both(*name)), h("dd", {}, value)) for name, value in facts]
    said = (
        "Sizes, lengths and exact copies are counted over all documents, the rest over a sample drawn by hash.",
        "大小、长度与完全重复统计全部文档，其余取自按哈希抽取的样本。",
    )
    return _section(
        "holds",
        ("What it holds", "内容"),
        said,
        h("dl", {"class": "facts glance"}, shown),
        h("div", {"class": "figures"}, figures),
    )


def _topics(told: Description) -> Html | None:
    if not told["topics"]:
        return None
    cards = []
    for topic in told["topics"]:
        count = h("small", {}, both(f"{topic['documents']:,} documents", f"{topic['documents']:,} 篇"))
        examples = [h("blockquote", {}, text) for text in topic["examples"][:1]]
        cards.append(h("div", {"class": "topic"}, h("p", {}, ", ".join(topic["words"])), count, examples))
    said = (
        "Clusters of the sample by k-means, with the words that tell each from the others.",
        "样本的 k 均值聚类，及各类区别于其他的词。",
    )
    return _section("topics", ("What it is about", "主题"), said, h("div", {"class": "topics"}, cards))


def _risks(told: Description) -> Html:
    sample, toxic = told["sample"], told["toxic"]
    kinds = [(kind, row) for kind, row in told["personal"].items() if row["places"]]
    found = [
        ((kind, kind), row["documents"], f"{row['documents']:,} · {1000 * row['documents'] / sample:.1f} ‰")
        for kind, row in kinds
    ]
    held = told["contamination"]
    leaks = "–" if held is None else f"{held['documents']:,} / {sample:,}"
    facts = [
        (("documents with a toxic line", "含辱骂语句的文档"), f"{toxic['documents']:,} / {sample:,}"),
        (("toxic lines", "辱骂语句"), f"{toxic['lines']:,} / {many(toxic['of'])}"),
        (("documents that share words with a test set", "与测试集重合的文档"), leaks),
    ]
    shown = [h("div", {}, h("dt", {}, both(*name)), h("dd", {}, value)) for name, value in facts]
    said = (
        "Personal data, insults and parts of test sets that are still in it, as scrub, filter and dedup find them.",
        "仍留存的个人信息、辱骂语句与测试集内容，由去除、过滤与去重所用的查找器检出。",
    )
    bars = _bars(("Documents with personal data, of the sample", "含个人信息的文档（样本）"), found)
    none = h("p", {"class": "said"}, both("No personal data was found in the sample.", "样本中未发现个人信息。"))
    return _section(
        "risks",
        ("What should not be in it", "不应有的内容"),
        said,
        h("dl", {"class": "facts glance"}, shown),
        h("div", {"class": "figures"}, bars) if found else none,
    )


def _bars(title: Two, rows: Sequence[tuple[Two, int, str]]) -> Html:
    """A bar a row, its name before it and its figure behind."""
    most = max([count for _, count, _ in rows], default=1) or 1
    inside: list[Html] = []
    for number, (name, count, shown) in enumerate(rows):
        y = number * _ROW + 15
        wide = max(1.0, 150 * count / most) if count else 0
        inside += [
            h("text", {"class": "name", "x": 0, "y": y + 4, "lang": lang}, _short(text))
            for lang, text in zip(("en", "zh"), name, strict=True)
        ]
        inside.append(h("rect", {"class": "bar", "x": 120, "y": y - 7, "width": round(wide, 1), "height": 14, "rx": 2}))
        inside.append(h("text", {"x": round(126 + wide, 1), "y": y + 4}, shown))
    label = f"{title[0]}: " + ", ".join(f"{name[0]} {shown}" for name, _, shown in rows)
    box = {
        "class": "bars plot",
        "role": "img",
        "aria-label": label,
        "viewBox": f"0 0 {_WIDE} {max(len(rows), 1) * _ROW}",
    }
    return h("figure", {}, h("figcaption", {}, h("b", {}, both(*title))), h("svg", box, inside))


def _short(text: str) -> str:
    return text if len(text) <= 17 else f"{text[:8]}…{text[-8:]}"
