"""Words and shapes that the reading tests share."""

import pytest
from hypothesis import strategies as st

NAMES = [
    "code",
    "status",
    "details",
    "errors",
    "action",
    "id",
    "record_id",
    "message",
    "data",
    "share",
    "tags",
    "info",
]
DEEP_NAMES = ["__composite_requests", "response", "status_code", "body", "json_path", "resource_path_index"]
CODES = ["RECORD_LOCKED", "NOT_APPROVED", "NOT_REVIEWED", "SUCCESS", "MULTIPLE_OR_MULTI_ERRORS", "DUPLICATE_DATA"]
TEXTS = ["$.data[0].id", "$.ids[1]", "error", "success", "zia_vision_processing", "record_locking"]
WORDS = st.sampled_from([*NAMES, *DEEP_NAMES, *CODES, *TEXTS])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS


def objects(values):
    """JSON objects that are often almost items."""
    almost = {
        "code": st.sampled_from(CODES) | values,
        "status": st.sampled_from(["error", "success"]) | values,
        "details": st.fixed_dictionaries(
            {}, optional={"action": st.just("zia_vision_processing") | values, "id": values, "errors": values}
        )
        | values,
    }
    return st.fixed_dictionaries({}, optional=almost) | st.dictionaries(
        WORDS | st.text(max_size=5), values, max_size=4
    )


DOCUMENTS = st.recursive(LEAVES, lambda values: st.lists(values, max_size=4) | objects(values), max_leaves=25)
ENVELOPES = st.fixed_dictionaries(
    {},
    optional={
        name: st.lists(objects(DOCUMENTS), max_size=3) | DOCUMENTS
        for name in ("data", "ids", "share", "tags", "__composite_requests")
    },
)


@pytest.fixture(scope="session")
def documents():
    """Strategies for JSON that likes the words which mean something here."""
    return ENVELOPES | DOCUMENTS
