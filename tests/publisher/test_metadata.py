"""What of a song's `metadata_json` becomes public: no secret and no place, at any depth, in any spelling."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.metadata import PRIVATE_KEY_PARTS, public_metadata
from publisher.places import spellings

PRIVATE_KEYS = [
    *("cookie", "Cookie", "COOKIE", "set-cookie", "token", "access_token", "accessToken", "refresh token"),
    *("authorization", "Authorization", "auth", "password", "passwd", "secret", "client_secret", "apiKey"),
    *("api-key", "access key", "session", "sessionId", "credentials", "signature", "path", "localPath"),
    *("file_path", "filepath", "file-name", "folder", "directory"),
]
PUBLIC_KEYS = ["duration", "album", "bitrate", "专辑", "genre", ""]


def places(*paths: str) -> set[bytes]:
    return {spelling for path in paths for spelling in spellings(path.encode())}


def published(stored: str | bytes, *base_paths: str, allowed: list[str] | None = None) -> str | None:
    stored = stored.encode() if isinstance(stored, str) else stored
    public = public_metadata(places(*base_paths), allowed)(stored)
    return None if public is None else public.decode()


def test_null_stays_null() -> None:
    assert public_metadata([])(None) is None


@pytest.mark.parametrize(
    "stored",
    ['{"album": "七里香", "n": [1, {"x": null}]}', '{ "a" : 1.50 }', "[]", "7", '"text"', "null", "{}"],
)
def test_harmless_text_is_copied_as_it_stands(stored: str) -> None:
    assert stored == published(stored)


@pytest.mark.parametrize(
    "stored",
    ['{"a": 1', "", "{'a': 1}", '{"a": NaN}', '{"a": 1,}', "plain text", '{"a": "\\ud800"}', '{"a": 1e999}'],
)
def test_invalid_json_becomes_null(stored: str) -> None:
    assert published(stored) is None


@pytest.mark.parametrize("stored", [b'{"a": "\xff"}', b'{"\xff": 1}', b'["\xed\xa0\x80"]', b'{"a": 1}\xff'])
def test_json_that_is_not_utf8_becomes_null(stored: bytes) -> None:
    assert published(stored) is None


def test_json_nested_too_deeply_becomes_null() -> None:
    assert published("[" * 100_000 + "]" * 100_000) is None


@pytest.mark.parametrize("key", PRIVATE_KEYS)
@pytest.mark.parametrize(
    "shape",
    ["{%s: %s}", '{"deep": {"deeper": {%s: %s}}}', '[{"list": [{%s: %s}]}]', '{"empty": {}, %s: %s}'],
)
def test_private_key_is_removed_at_any_depth(key: str, shape: str) -> None:
    for value in ('"MARKER"', '{"x": "MARKER"}', '["MARKER"]'):
        public = published(shape % (json.dumps(key), value))
        assert public is not None
        assert "MARKER" not in public
        assert key not in public


@pytest.mark.parametrize("key", PUBLIC_KEYS)
def test_other_keys_stay_beside_a_private_one(key: str) -> None:
    public = published(json.dumps({key: "kept", "token": "MARKER", "nested": {key: 1, "cookie": 2}}))
    assert json.loads(public or "") == {key: "kept", "nested": {key: 1}}


@pytest.mark.parametrize(
    "stored",
    [
        '{"\\u0063ookie": "MARKER", "album": "x"}',
        '{"cook\\u0069e": "MARKER", "album": "x"}',
        '{"p\\u0061th": "MARKER", "album": "x"}',
    ],
)
def test_private_key_spelled_with_escapes_is_removed(stored: str) -> None:
    assert published(stored) == '{"album":"x"}'


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ('{"a": "MARKER", "a": 1}', '{"a":1}'),
        ('{"cookie": "MARKER", "cookie": "MARKER"}', "{}"),
        ('{"n": {"a": "MARKER", "a": 1}}', '{"n":{"a":1}}'),
        ('{"a": {"cookie": "MARKER"}, "a": 1}', '{"a":1}'),
    ],
)
def test_of_a_repeated_key_only_the_last_value_stays(stored: str, expected: str) -> None:
    """A decoder shows the last one; what it hides must not be in the text."""
    assert published(stored) == expected


@pytest.mark.parametrize(
    "stored",
    [
        '{"source": "/volume1/music/MARKER.flac", "album": "x"}',
        '{"source": "file:///volume1/music/MARKER.flac", "album": "x"}',
        '{"source": "\\/volume1\\/music\\/MARKER.flac", "album": "x"}',
        '{"source": "\\u002fvolume1/music/MARKER", "album": "x"}',
        '{"/volume1/music/MARKER": 1, "album": "x"}',
        '{"album": "x", "D:": "D:\\\\Music\\\\MARKER"}',
    ],
)
def test_text_that_holds_a_base_path_is_removed(stored: str) -> None:
    public = published(stored, "/volume1/music", "D:\\Music")
    assert public is not None
    assert "MARKER" not in public
    assert json.loads(public)["album"] == "x"


@pytest.mark.parametrize(
    ("base_path", "text"),
    [
        ("/音乐", "https://y.example/%E9%9F%B3%E4%B9%90/12"),  # RFC 3986, section 2.1
        ("/Music Library", "https://y.example/Music%20Library/12"),
        ("D:\\music", "D:/music/a.flac"),
        ("D:/music", "D:\\music\\a.flac"),
        ("//nas/music", "\\\\nas\\music\\a.flac"),
        ("/volume1/音乐", '{"from": "\\/volume1\\/\\u97f3\\u4e50\\/a.flac"}'),  # JSON within JSON
    ],
)
@pytest.mark.parametrize("escaped", [True, False])
def test_text_that_holds_a_base_path_in_another_spelling_is_removed(
    base_path: str, text: str, escaped: bool
) -> None:
    value = {"album": "x", "from": text, "all": [text, 1]}
    public = published(json.dumps(value, ensure_ascii=escaped), base_path)
    assert json.loads(public or "") == {"album": "x", "all": [1]}


def test_base_path_that_stands_in_the_text_and_in_none_of_its_strings_makes_it_null() -> None:
    """A line feed, but the bytes spell the folder, and these are what the proof looks at."""
    assert published('{"album": "D:\\new\\x"}', "D:\\new") is None
    assert published('{"a/": ["b"]}', 'a/": ["b') is None


@pytest.mark.parametrize("word", ["2024", "music", "音乐", ".", "../..", "D:"])
def test_base_path_that_does_not_tell_where_it_is_removes_nothing(word: str) -> None:
    stored = '{"year": 2024, "released": "2024-05-01", "genre": "music 音乐", "at": "../../D:"}'
    assert published(stored, word) == stored


def test_base_path_in_a_list_is_removed() -> None:
    assert published('{"a": ["/volume1/music/x", "y"]}', "/volume1/music") == '{"a":["y"]}'


def test_bare_text_that_holds_a_base_path_becomes_null() -> None:
    assert published('"/volume1/music/x"', "/volume1/music") is None


def test_base_path_that_every_text_would_hold_is_ignored() -> None:
    assert published('{"a": "R/B"}', "/", "") == '{"a": "R/B"}'


@pytest.mark.parametrize("stored", ['{"album": "x", "genre": "y", "n": 1}', '{"album": "x", "n": {"a": 1}}'])
def test_allow_list_keeps_only_its_keys(stored: str) -> None:
    assert published(stored, allowed=["album"]) == '{"album":"x"}'


def test_allow_list_narrows_text_of_a_shape_seen_before() -> None:
    narrowed = public_metadata([], ["album"])
    assert [
        narrowed(b'{"album": 1}'),
        narrowed(b'{"album": 1, "n": 2}'),
        narrowed(b'{"album": 3, "n": 2}'),
    ] == [
        b'{"album": 1}',
        b'{"album":1}',
        b'{"album":3}',
    ]


def test_allow_list_does_not_bring_back_a_private_key() -> None:
    assert published('{"cookie": "MARKER", "album": "x"}', allowed=["cookie", "album"]) == '{"album":"x"}'


def test_allow_list_holds_at_the_top_level_only() -> None:
    assert published('{"album": {"n": 1}}', allowed=["album"]) == '{"album": {"n": 1}}'


def test_empty_allow_list_keeps_nothing() -> None:
    assert published('{"album": "x"}', allowed=[]) == "{}"


@pytest.mark.parametrize("stored", ['[{"album": "x"}]', '"text"', "7"])
def test_under_an_allow_list_what_has_no_keys_becomes_null(stored: str) -> None:
    assert published(stored, allowed=["album"]) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8) | st.just("/nas/m/x"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*PRIVATE_KEYS, *PUBLIC_KEYS, "/nas/m"]), inner, max_size=4)
    ),
    max_leaves=12,
)


def naively_public(value: object) -> object:
    """The rule, said once more: drop private keys, and strings and keys with a place."""
    if isinstance(value, dict):
        return {
            key: naively_public(item)
            for key, item in value.items()
            if key not in PRIVATE_KEYS and "/nas/m" not in key and not _is_place(item)
        }
    if isinstance(value, list):
        return [naively_public(item) for item in value if not _is_place(item)]
    return value


def _is_place(item: object) -> bool:
    return isinstance(item, str) and "/nas/m" in item


@given(JSON, st.booleans(), st.sampled_from([None, 1]))
def test_public_form_is_what_the_rule_leaves(value: object, escaped: bool, indent: int | None) -> None:
    public = published(json.dumps(value, ensure_ascii=escaped, indent=indent), "/nas/m")
    if _is_place(value):
        assert public is None
    else:
        assert json.loads(public or "") == naively_public(value)


@given(st.binary(max_size=60))
def test_any_bytes_become_json_or_null(stored: bytes) -> None:
    public = published(stored)
    if public is not None:
        json.loads(public)


FLAT: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from(["a", "b", "专辑", "a:b", "cookie", 'q"', "\x7f", "/nas/m"]) | st.text(max_size=2),
    st.sampled_from(
        [0, 1.5, 2**70, -1e300, True, None, "x", "a:b", "/nas/m/x", "\t", "歌", {}, [], {"a": 1}]
    ),
    max_size=3,
)


@given(st.lists(FLAT, max_size=6), st.booleans(), st.sampled_from([None, ["a", "专辑"]]))
def test_text_seen_before_does_not_change_what_becomes_public(
    values: list[dict[str, Any]], escaped: bool, allowed: list[str] | None
) -> None:
    """What is remembered of one text makes the next one faster, and nothing else."""
    remembering = public_metadata(places("/nas/m"), allowed)
    for value in values:
        stored = json.dumps(value, ensure_ascii=escaped).encode()
        for text in (stored, stored.replace(b'"b"', b'"a"'), stored[:-1], stored.replace(b"1.5", b"1e999")):
            assert public_metadata(places("/nas/m"), allowed)(text) == remembering(text)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ('{"a": "MARKER", "a": 1}', '{"a":1}'),
        ('{"a": 1, "cookie": "MARKER"}', '{"a":1}'),
        ('{"a": 1, "b": {"cookie": 2}}', '{"a":1,"b":{}}'),
        ('{"a": 1, "b": "/nas/m/MARKER"}', '{"a":1}'),
        ('{"a": 1, "b": ["/nas/m/MARKER"]}', '{"a":1,"b":[]}'),
        ('{"a": 1, "b": 2', None),
        ('{"b": 1, "a": "x:y"}', '{"b": 1, "a": "x:y"}'),
    ],
)
def test_private_text_after_harmless_text_of_its_shape_is_removed(stored: str, expected: str | None) -> None:
    remembering = public_metadata(places("/nas/m"))
    assert remembering(b'{"a": 1, "b": 2}') == b'{"a": 1, "b": 2}'
    public = remembering(stored.encode())
    assert expected == (None if public is None else public.decode())


@given(st.data(), st.sampled_from([None, ["a", "album", "专辑"]]))
def test_what_is_public_stays_as_it_is(data: st.DataObject, allowed: list[str] | None) -> None:
    """A refresh relies on it: text that is what was public before is public without a second look."""
    values = data.draw(
        st.lists(
            st.tuples(JSON | FLAT, st.booleans(), st.sampled_from([None, 1])).map(
                lambda drawn: json.dumps(drawn[0], ensure_ascii=drawn[1], indent=drawn[2]).encode()
            )
            | st.binary(max_size=20)
            | st.sampled_from(
                [
                    b'{"a": 1, "a": 2.50, "cookie": 1e2}',
                    b'{"a": -0.0, "token": 18446744073709551616}',
                    b'{"a": "\\u2028\\/", "path": 1}',
                    b'{"a": 1e308, "b": {"session": 123456789012345678901234567890}}',
                ]
            ),
            max_size=4,
        )
    )
    remembering = public_metadata(places("/nas/m"), allowed)
    for stored in values:
        public = remembering(stored)
        assert public == remembering(public)
        assert public == public_metadata(places("/nas/m"), allowed)(public)


SPOILT = st.recursive(
    st.sampled_from([*(text.decode() for text in places("/音/m x", "D:\\n")), "a", 1]).flatmap(
        lambda item: st.sampled_from([item, item, f"x{item}/y"])
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)


@given(SPOILT, st.booleans(), st.booleans())
def test_no_public_bytes_hold_what_the_proof_looks_for(value: object, escaped: bool, slash: bool) -> None:
    """Else an honest catalogue would be refused for ever."""
    stored = json.dumps(value, ensure_ascii=escaped)
    looked_for = places("/音/m x", "D:\\n")
    for text in (stored, stored.replace("/", "\\/") if slash else stored.replace("\\\\", "\\")):
        public = public_metadata(looked_for)(text.encode()) or b""
        assert not [place for place in looked_for if place in public]


def test_every_part_of_the_documented_list_is_in_lower_case() -> None:
    """Keys are compared in lower case: another part would never match."""
    assert [part for part in PRIVATE_KEY_PARTS if part != part.lower()] == []
