"""The server obeys its own OpenAPI description, whatever a client makes of that."""

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis.specs.openapi.checks import positive_data_acceptance

from qualm.files import write_json
from qualm.serving.run import background
from serving import Counter

SKIPPED = [positive_data_acceptance]  # a body that fits may still ask for what this model cannot do: answered 400


def check(count: int, seed: int, records) -> int:
    """Every operation with `count` drawn requests and all checks; how many answers were looked at."""
    looked = 0
    with background([Counter(room=20)], audits=records) as running:
        app = running.server.config.app.app
        schema = schemathesis.openapi.from_dict(app.openapi())
        schema.config.update(base_url=running.url.removesuffix("/v1"))
        for result in schema.get_all_operations():
            operation = result.ok()

            @hypothesis.seed(seed)
            @hypothesis.settings(
                max_examples=count,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.explicit, Phase.generate],
            )
            @hypothesis.given(case=operation.as_strategy())
            def ask(case):
                nonlocal looked
                case.call_and_validate(excluded_checks=SKIPPED)
                looked += 1

            ask()
    return looked


@pytest.fixture
def records(tmp_path):
    write_json(tmp_path / "first" / "record.json", {"schema": "qualm.audit/1", "subject": "x", "measurements": []})
    return tmp_path


def test_requests_drawn_from_the_description(records):
    assert check(8, 0, records) >= 8 * 8


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_thousand_requests_an_operation(records, seed):
    assert check(1000, seed, records) > 1000
