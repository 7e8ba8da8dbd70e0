"""Places in a JSON text: what is not replaced stays byte for byte."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crm_guard._protocol.json_spans import elements, members, pick, splice

BLANKS = st.text(alphabet=" \t\n\r", max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(BLANKS, VALUES, BLANKS), max_size=5), BLANKS, st.booleans())
def test_every_element_is_found_where_it_lies(parts, blank, escaped):
    written = [json.dumps(value, ensure_ascii=escaped) for _, value, _ in parts]
    inside = ",".join(f"{before}{text}{after}" for (before, _, after), text in zip(parts, written, strict=True))
    text = f"{blank}[{inside or blank}]{blank}"
    spans = elements(text)
    assert [text[span.start : span.end] for span in spans] == written
    assert [span.value for span in spans] == [value for _, value, _ in parts]
    assert pick(text, spans, range(len(spans))) == f"[{','.join(written)}]"
    assert pick(text, spans, range(0, len(spans), 2)) == f"[{','.join(written[::2])}]"


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=4), st.tuples(VALUES, BLANKS), max_size=5), BLANKS)
def test_every_member_is_found_where_it_lies(parts, blank):
    inside = ",".join(
        f"{blank}{json.dumps(name)}{gap}:{gap}{json.dumps(value)}{blank}" for name, (value, gap) in parts.items()
    )
    text = f"{blank}{{{inside or blank}}}"
    found = members(text)
    assert {name: span.value for name, span in found.items()} == {name: value for name, (value, _) in parts.items()}
    assert all(text[span.start : span.end] == json.dumps(span.value) for span in found.values())


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet='{}[],:"\\ue0123-.xnat \t', max_size=30))
def test_any_text_is_read_as_json_reads_it_or_not_at_all(text):
    for read, kind in ((members, dict), (elements, list)):
        try:
            found = read(text)
        except (ValueError, RecursionError):
            with pytest.raises((ValueError, RecursionError)):
                json.loads(text)
            continue
        if found is not None:
            value, _ = json.JSONDecoder().raw_decode(text.lstrip(" \t\n\r"))
            plain = [span.value for span in (found.values() if kind is dict else found)]
            assert repr(plain) == repr(list(value.values()) if kind is dict else value)  # NaN equals nothing


@pytest.mark.parametrize("text", ["", " ", "[]", "1", '"x"', "null", "\ufeff{}"])
def test_what_is_no_object_has_no_members(text):
    assert members(text) is None


@pytest.mark.parametrize("text", ["", " ", "{}", "1", '"x"', "null", "\ufeff[]"])
def test_what_is_no_array_has_no_elements(text):
    assert elements(text) is None


@pytest.mark.parametrize("text", ['{"a":1,"a":2}', '{"a":1,"\\u0061":2}', "{1:2}", '{"a" 1}', "{[]:1}"])
def test_an_object_whose_keys_are_in_doubt_is_not_read(text):
    assert members(text) is None


@pytest.mark.parametrize("text", ['{"a":1', '{"a":1 "b":2}', '{"a":', "{", '{"a":1,}', "[1", "[1 2]", "[", "[1,]"])
def test_a_broken_text_is_an_error_of_value(text):
    with pytest.raises(ValueError, match=r"[Ee]xpect"):
        members(text) if text.startswith("{") else elements(text)


def test_an_absurd_depth_is_a_recursion_error():
    with pytest.raises(RecursionError):
        elements("[" * 100_000)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=20), st.data())
def test_only_the_replaced_stretches_change(text, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6, unique=True)))
    stretches = list(zip(cuts[::2], cuts[1::2], strict=False))
    assert splice(text, {(start, end): text[start:end] for start, end in stretches}) == text
    kept = [
        text[a:b]
        for a, b in zip([0, *(end for _, end in stretches)], [*(s for s, _ in stretches), len(text)], strict=True)
    ]
    assert splice(text, dict.fromkeys(stretches, "#")) == "#".join(kept)


def test_the_order_in_which_stretches_are_given_does_not_matter():
    assert splice("abcdef", {(4, 5): "X", (1, 2): "Y"}) == "aYcdXf"
