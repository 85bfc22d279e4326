"""The page in a real browser: every function, by mouse and keyboard, in both languages, light and dark, on a phone; axe
finds nothing, and nothing that a model says is run. Needs Debian's chromium."""

import json
import re
import shutil
from pathlib import Path

import pytest

from qualm.lm.base import LM, Card, Completion, Sampling, Scored
from qualm.mends.apply import apply, make
from qualm.serving.run import background
from serving import Counter
from web.payloads import PAYLOADS

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium"),
    pytest.mark.filterwarnings("default"),  # what the browser's driver leaves open
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
SIZES = {"desk": (1280, 860), "tablet": (820, 1100), "phone": (390, 844)}
VIEWS = ("chat", "compare", "knowledge", "explain", "audits", "models")


class Parrot(LM):
    """Says again what it was asked; scores an answer by whether the question holds it."""

    can = frozenset({"generate", "score"})

    def __init__(self, name="parrot"):
        self.name, self.card = name, Card("parrot", weights=name)

    def generate(self, prompts, sampling=Sampling()):
        return [Completion(p if isinstance(p, str) else p[-1]["content"], 3, 1, logprobs=(-0.1,)) for p in prompts]

    def score(self, pairs):
        return [Scored((-1.0 if text in str(context) else -4.0,)) for context, text in pairs]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    from qualm.cli.app import main

    folder = tmp_path_factory.mktemp("records")
    words = ["--probe", "arithmetic", "--probe", "knowledge", "--quick", "-q"]
    assert main(["mend", "fake:oracle", "--with", "identity", "-o", str(folder / "same"), *words]) == 0
    assert main(["audit", "fake:innumerate", "-o", str(folder / "before"), *words]) == 0
    assert main(["audit", "fake:oracle", "-o", str(folder / "after"), *words]) == 0
    assert main(["compare", str(folder / "before"), str(folder / "after"), "-o", str(folder / "proved"), "-q"]) == 0
    return folder


@pytest.fixture(scope="module")
def served(records):
    parrot = Parrot()
    models = [Counter(0.01), parrot, apply(parrot, make("calculator", {}))]
    with background(models, audits=records) as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


def told(said):
    """Whether the browser only says that the server refused something, or that it did itself what a model wrote."""
    return "status of 400" in said.text or "Content Security Policy" in said.text


@pytest.fixture
def at(browser, served):
    """`at("chat")` opens a view; afterwards nothing may have gone wrong or been asked of anyone else."""
    opened, wrong, asked = [], [], []

    def go(view, size="desk", scheme="light", language="en-GB"):
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, locale=language)
        opened.append(context)
        tab = context.new_page()
        tab.set_default_timeout(20000)
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("console", lambda said: wrong.append(said.text) if said.type == "error" and not told(said) else None)
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("dialog", lambda dialog: wrong.append(f"a dialog: {dialog.message}"))
        tab.goto(f"http://{served.host}:{served.port}/#/{view}")
        tab.wait_for_selector("main > section")
        return tab

    yield go
    for context in opened:
        context.close()
    assert wrong == []
    own = f"http://{served.host}:{served.port}/"
    assert [url for url in asked if not url.startswith((own, "data:", "blob:"))] == []


def ask(tab, text, box="Your message"):
    tab.get_by_label(box).fill(text)
    tab.get_by_label(box).press("Enter")


def finished(tab, count=1):
    tab.locator(".answer[aria-busy=false]").nth(count - 1).wait_for()


def test_a_chat_streams_and_goes_on(at):
    tab = at("chat")
    ask(tab, "hello")
    tab.wait_for_selector(".answer[aria-busy=true] .prose")  # something stands there before the end
    finished(tab)
    ask(tab, "and again")
    finished(tab, 2)
    assert tab.locator(".asked").all_inner_texts() == ["hello", "and again"]
    assert "256 tokens" in tab.locator(".told").first.inner_text()
    tab.get_by_role("button", name="New chat").click()
    assert tab.locator(".asked").count() == 0


def test_an_answer_can_be_stopped_and_what_came_stays(at):
    tab = at("chat")
    ask(tab, "hello")
    tab.wait_for_selector(".answer .prose")
    tab.get_by_role("button", name="Stop").click()
    finished(tab)
    assert "stopped by you" in tab.locator(".told").inner_text()
    assert tab.locator(".answer .prose").inner_text()


def test_shift_enter_begins_a_line_and_enter_sends(at):
    tab = at("chat")
    box = tab.get_by_label("Your message")
    box.fill("one")
    box.press("Shift+Enter")
    box.type("two")
    box.press("Enter")
    finished(tab)
    assert tab.locator(".asked").inner_text() == "one\ntwo"


def test_tokens_are_shaded_and_their_alternatives_shown_by_mouse_and_keys(at):
    tab = at("chat")
    tab.get_by_label("Show how sure it is").check()
    ask(tab, "hello")
    finished(tab)
    tab.locator(".token").nth(3).hover()
    rows = tab.locator(".alternatives tr")
    assert rows.count() >= 5
    assert tab.locator(".alternatives .taken").count() == 1
    tab.locator(".tokens p").focus()
    tab.keyboard.press("Home")
    first = tab.locator(".token.here").inner_text()
    tab.keyboard.press("ArrowRight")
    assert tab.locator(".token.here").get_attribute("data-at") == "1"
    assert tab.locator(".token.here").inner_text() != first
    tab.keyboard.press("Escape")
    assert tab.locator(".alternatives").is_hidden()


def test_settings_reach_the_model(at):
    tab = at("chat")
    tab.get_by_text("Settings").click()
    tab.get_by_label("Most tokens").fill("3")
    tab.get_by_label("Most tokens").blur()
    tab.get_by_text("Settings").click()
    ask(tab, "hello")
    finished(tab)
    assert "3 tokens" in tab.locator(".told").inner_text()
    assert "cut at its length" in tab.locator(".told").inner_text()


def test_two_models_answer_side_by_side_and_calls_are_shown(at):
    tab = at("compare")
    tab.locator("#side-0").select_option("parrot")
    tab.locator("#side-1").select_option("parrot+calculator")
    ask(tab, "<<12 + 34=", "Your question")
    finished(tab, 2)
    sides = tab.locator(".sides article")
    assert "46" not in sides.nth(0).inner_text()
    assert "12 + 34 = 46" in sides.nth(1).locator(".calls").inner_text()


def test_dropped_files_are_read_cited_and_marked(at, tmp_path):
    tab = at("knowledge")
    file = tmp_path / "facts.txt"
    file.write_text("Omra Telis was born in Vanu. The sea there is green.")
    tab.get_by_label("Files to add").set_input_files(file)
    tab.wait_for_selector(".files li")
    tab.locator("main select").first.select_option("parrot")
    ask(tab, "Where was Omra Telis born?", "Your question")
    finished(tab)
    assert "facts.txt" in tab.locator(".cited .source").inner_text()
    assert "Vanu" in tab.locator(".cited mark.said").all_inner_texts()
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{")
    tab.get_by_label("Files to add").set_input_files(bad)
    tab.wait_for_selector(".drop .trouble")
    assert "not a JSON record" in tab.locator(".drop .trouble").inner_text()
    tab.get_by_label("Take out facts.txt").click()
    tab.locator(".files li").wait_for(state="detached")


def test_an_explanation_is_a_map_of_heat_with_its_score(at):
    tab = at("explain")
    tab.locator("main select").first.select_option("parrot")
    tab.get_by_label("Question").fill("Where by the green sea was old Omra born, in Vanu or elsewhere?")
    tab.get_by_label(re.compile("^Answer")).fill("Vanu")
    tab.get_by_role("button", name="Explain").click()
    tab.wait_for_selector(".heats")
    hottest = tab.eval_on_selector_all(
        ".heat",
        """all => all.sort((a, b) => b.style.getPropertyValue("--heat") - a.style.getPropertyValue("--heat"))[0]
            .innerText""",
    )
    assert hottest == "Vanu"
    assert "nats" in tab.locator(".told-why").inner_text()


def test_an_audit_opens_down_to_its_cases(at):
    tab = at("audits")
    tab.wait_for_selector(".limits")
    cell = tab.get_by_role("button", name=re.compile("^arithmetic, better"))
    cell.click()
    tab.wait_for_selector(".drawer .cases li")
    said = tab.locator(".drawer").inner_text()
    assert "fixed" in said
    assert "Wanted" in said
    tab.keyboard.press("Escape")
    tab.locator(".drawer").wait_for(state="detached")
    assert cell.evaluate("node => node === document.activeElement")  # where the keyboard was


def test_a_report_opens_in_a_frame_without_rights(at):
    tab = at("audits")
    tab.get_by_role("link", name="report").first.click()
    frame = tab.frame_locator("iframe")
    frame.locator("h1").first.wait_for()
    assert tab.locator("iframe").get_attribute("sandbox") == "allow-scripts"


def test_a_card_says_what_a_model_is(at):
    said = at("models").locator("main").inner_text()
    assert "parrot+calculator" in said
    assert "Calculator(" in said


def test_the_page_speaks_chinese_and_remembers_it(at):
    tab = at("chat")
    tab.get_by_role("button", name="中文").click()
    assert tab.locator("nav").inner_text().split() == ["对话", "并排比较", "知识", "解释", "审计", "模型"]
    tab.reload()
    tab.wait_for_selector("main > section")
    assert tab.evaluate("document.documentElement.lang") == "zh-CN"


def test_a_key_is_asked_for_and_kept_for_the_tab(browser):
    from qualm.serving.keys import Keys, given

    with background([Parrot()], keys=Keys([given("a-long-key")])) as running:
        tab = browser.new_page()
        tab.goto(f"http://{running.host}:{running.port}/")
        tab.get_by_label(re.compile("^API key")).fill("a-long-key")
        tab.get_by_role("button", name="Go on").click()
        tab.get_by_label("Your message").wait_for()
        ask(tab, "hello")
        finished(tab)
        tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing(at, view, scheme):
    from axe_playwright_python.sync_playwright import Axe

    tab = at(view, scheme=scheme)
    if view == "chat":
        tab.get_by_label("Show how sure it is").check()
        ask(tab, "hello")
        finished(tab)
    if view == "audits":
        tab.wait_for_selector(".limits")
    found = Axe().run(tab)
    assert found.violations_count == 0, json.dumps(
        [(v["id"], [n["html"] for n in v["nodes"]][:3]) for v in found.response["violations"]]
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("view", VIEWS)
def test_no_view_is_wider_than_its_screen(at, view, size):
    tab = at(view, size)
    wide = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0
    link = tab.locator("nav [aria-current]").bounding_box()
    assert link["x"] >= 0
    assert link["x"] + link["width"] <= tab.viewport_size["width"]


FORBIDDEN = ["audio", "base", "button", "embed", "form", "iframe", "img", "input", "link", "math", "meta", "object"]
FORBIDDEN += ["script", "style", "svg", "video"]
RENDERED = """async ([payloads, forbidden]) => {
    const { Markdown } = await import("/page/js/markdown.js");
    const { html, render } = await import("/page/vendor/preact.js");
    const bad = [];
    for (const text of payloads) {
        const place = document.body.appendChild(document.createElement("div"));
        render(html`<${Markdown} text=${text} />`, place);
        for (const node of place.querySelectorAll("*")) {
            if (forbidden.includes(node.localName)) bad.push([text, node.localName]);
            for (const { name, value } of node.attributes) {
                if (name.startsWith("on") || name === "style" || name === "srcdoc") bad.push([text, name]);
                if (name === "href" && !/^(https?|mailto):/i.test(value.trim())) bad.push([text, value]);
            }
        }
    }
    await new Promise((done) => setTimeout(done, 500));
    return [bad, window.ran === undefined];
}"""


def test_nothing_that_a_model_says_is_run(at):
    assert len(PAYLOADS) >= 150
    assert at("chat").evaluate(RENDERED, [PAYLOADS, FORBIDDEN]) == [[], True]


def test_a_payload_in_a_whole_chat_is_run_nowhere(at):
    tab = at("chat")
    tab.locator("main select").first.select_option("parrot")
    text = " ".join(PAYLOADS[:12])
    ask(tab, text)
    finished(tab)
    tab.get_by_label("Show how sure it is").check()
    assert tab.evaluate("window.ran === undefined")
    assert tab.locator(".asked").inner_text().startswith(PAYLOADS[0][:20])


def shown(tab, view, facts):
    """Use a view, so that what it is for can be seen."""
    models, box = tab.locator("main select:visible"), tab.locator("main textarea:visible").first
    if view == "chat":
        tab.locator(".switch input").check()
        box.fill("hello")
        box.press("Enter")
    if view == "compare":
        models.nth(0).select_option("parrot")
        models.nth(1).select_option("parrot+calculator")
        box.fill("<<12 + 34=")
        box.press("Enter")
    if view == "knowledge":
        tab.locator("input[type=file]").set_input_files(facts)
        tab.wait_for_selector(".files li")
        models.first.select_option("parrot")
        box.fill("Where was Omra Telis born?")
        box.press("Enter")
    if view == "explain":
        models.first.select_option("parrot")
        box.fill("Where by the green sea was old Omra born, in Vanu or elsewhere?")
        tab.locator("main form button").last.click()
        tab.wait_for_selector(".heats")
    if view in ("chat", "compare", "knowledge"):
        finished(tab, 2 if view == "compare" else 1)


def test_screenshots_at_three_sizes_in_light_and_dark(at, request, tmp_path):
    folder = request.config.getoption("--screenshots")
    if not folder:
        pytest.skip("name a folder: --screenshots DIR")
    facts = tmp_path / "facts.txt"
    facts.write_text("Omra Telis was born in Vanu. The sea there is green.")
    for size in SIZES:
        for scheme in ("light", "dark"):
            for view in VIEWS:
                tab = at(view, size, scheme, "zh-CN" if scheme == "dark" else "en-GB")
                shown(tab, view, facts)
                tab.wait_for_timeout(400)
                tab.screenshot(path=Path(folder) / f"{view}-{size}-{scheme}.png")
                tab.context.close()
