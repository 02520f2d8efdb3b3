"""Types and names: what the audio on a NAS is called on the web."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from origin.media import content_disposition, content_type, extension, track_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.flac", "audio/flac"),
        ("a.FLAC", "audio/flac"),
        ("a.mp3", "audio/mpeg"),
        ("a.m4a", "audio/mp4"),
        ("a.ogg", "audio/ogg"),
        ("a.opus", "audio/ogg"),
        ("a.wav", "audio/wav"),
        ("a.aac", "audio/aac"),
        ("a.ape", "audio/x-ape"),
        ("a.wv", "audio/x-wavpack"),
        ("a.mka", "audio/x-matroska"),
        ("a.b.mp3", "audio/mpeg"),
        ("a.html", "application/octet-stream"),
        ("mp3", "application/octet-stream"),
        (".mp3", "application/octet-stream"),
    ],
)
def test_type(name: str, expected: str) -> None:
    assert expected == content_type(extension(name))


def test_name_without_claims() -> None:
    """The name on the NAS is not shown, and neither is an extension that is no audio."""
    assert track_name(7, "flac") == "track-7.flac"
    assert track_name(None, "mp3") == "track.mp3"
    assert track_name(7, "secret") == "track-7"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a b.mp3", 'inline; filename="a b.mp3"'),
        # RFC 8187, section 3.2.3, has the pound and the euro.
        (
            "£ and € rates",
            "inline; filename=\"_ and _ rates\"; filename*=UTF-8''%C2%A3%20and%20%E2%82%AC%20rates",
        ),
        ('a"b.mp3', "inline; filename=\"a_b.mp3\"; filename*=UTF-8''a%22b.mp3"),
        ("100%.mp3", "inline; filename=\"100_.mp3\"; filename*=UTF-8''100%25.mp3"),
        ("a'b*(c).mp3", 'inline; filename="a\'b*(c).mp3"'),
    ],
)
def test_disposition(name: str, expected: str) -> None:
    """RFC 6266, section 4, and its appendix D on what not to put in the plain parameter."""
    assert expected == content_disposition("inline", name)


@given(st.text(min_size=1, max_size=60).filter(lambda text: text.isprintable()))
def test_name_survives(name: str) -> None:
    """Whatever the name, the header is one line of ASCII and says exactly it."""
    header = content_disposition("attachment", name)
    assert header.isascii() and header.isprintable()
    _, found, encoded = header.partition("filename*=UTF-8''")
    assert name == (unquote(encoded) if found else header.partition('filename="')[2][:-1])
