"""Records are listed and read; no name leads out of their folder; the page's files are served under a strict policy."""

import pytest

from qualm.auditing import record
from qualm.auditing.run import audit
from qualm.files import write_text
from qualm.lm.fake import named
from qualm.serving import page
from qualm.serving.keys import Keys, given
from qualm.serving.run import background
from serving import Client, Counter


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    made = audit(named("oracle"), ["arithmetic"], quick=True)
    record.save(made, folder / "runs" / "first")
    record.save(made, folder / "second")
    write_text(folder / "second" / "report.html", "<p>a report</p>")
    write_text(folder / "broken" / "record.json", "{")
    write_text(folder.parent / "outside" / "record.json", "{}")
    (folder / "link").symlink_to(folder.parent / "outside")
    return folder


@pytest.fixture(scope="module")
def client(folder):
    with background([Counter()], audits=folder) as running:
        yield Client(running)


def test_records_are_listed_by_where_they_lie(client):
    found = {each["id"]: each for each in client.get("/v1/audits")[2]["data"]}
    assert set(found) == {"runs:first", "second"}
    assert found["second"]["report"] is True
    assert found["runs:first"]["report"] is False
    assert (found["second"]["object"], found["second"]["measurements"]) == ("audit", 1)


def test_a_record_is_what_record_json_holds(client, folder):
    found = client.get("/v1/audits/runs:first")[2]
    assert found.pop("id") == "runs:first"
    assert found == record.document(record.read_audit(folder / "runs" / "first"))


def test_cases_come_in_portions(client, folder):
    whole = record.read_audit(folder / "second")["arithmetic"]
    found = client.get("/v1/audits/second/cases?probe=arithmetic&start=3&count=4")[2]
    assert found["total"] == len(whole.cases)
    assert [each["id"] for each in found["data"]] == [case.id for case in whole.cases[3:7]]
    assert client.get("/v1/audits/second/cases?probe=none")[2]["data"] == []
    assert client.get("/v1/audits/second/cases?count=0")[0] == 400


def test_a_report_may_do_nothing_to_the_page(client):
    status, headers, text = client.get("/v1/audits/second/report")
    assert (status, text) == (200, "<p>a report</p>")
    assert headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none'")
    assert client.get("/v1/audits/runs:first/report")[0] == 404


OUT = [
    "..",
    "../..",
    "..:outside",
    "link",
    "/etc/passwd",
    "%2e%2e",
    "..%2foutside",
    "a%00b",
    "second/..",
    "\\..",
    "~",
    ".",
]
OUT += [
    "....//outside",
    "%252e%252e",
    "second:..",
    "second:..:..:outside",
    ":",
    "::",
    "%2F",
    "%5C..",
    "con",
    "file:///etc",
]


@pytest.mark.parametrize("name", OUT)
@pytest.mark.parametrize("rest", ["", "/cases", "/report"])
def test_no_name_leads_out_of_the_folder(client, name, rest):
    status, _, answer = client.get(f"/v1/audits/{name}{rest}")
    assert status == 404, answer


def test_a_damaged_record_is_a_404(client):
    status, _, answer = client.get("/v1/audits/broken")
    assert (status, answer["error"]["code"]) == (404, "audit_damaged")


def test_the_page_is_open_and_loads_nothing_from_elsewhere(tmp_path, monkeypatch):
    write_text(tmp_path / "index.html", "<title>page</title>")
    write_text(tmp_path / "app.js", "1")
    monkeypatch.setattr(page, "FOLDER", tmp_path)
    with background([Counter()], keys=Keys([given("a-secret-key")])) as running:
        client = Client(running)
        for path in ("/", "/page/app.js"):
            status, headers, _ = client.get(path)
            assert status == 200
            assert "default-src 'none'" in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
        assert client.get("/page/../keys.json")[0] == 404
        assert client.get("/page/%2e%2e/%2e%2e/etc/passwd")[0] == 404
        assert client.get("/v1/models")[0] == 401
