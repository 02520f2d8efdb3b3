"""Types and names: what the audio on a NAS is called on the web."""

from __future__ import annotations

import re
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
        ("a.m4b", "audio/mp4"),
        ("a.oga", "audio/ogg"),
        ("a.aiff", "audio/aiff"),
        ("a.dsf", "audio/x-dsf"),
        ("a.wma", "audio/x-ms-wma"),
        ("a.mpc", "audio/x-musepack"),
        ("a.tta", "audio/x-tta"),
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
        # Only what is not ASCII; and what looks like an encoded name already.
        ("周杰伦.mp3", "inline; filename=\"___.mp3\"; filename*=UTF-8''%E5%91%A8%E6%9D%B0%E4%BC%A6.mp3"),
        ("a%22b.mp3", "inline; filename=\"a_22b.mp3\"; filename*=UTF-8''a%2522b.mp3"),
        # RFC 6266, section 4.3: no path, and no file that a system hides or takes for something else.
        ("../../etc/passwd", 'inline; filename="__.._etc_passwd"'),
        (r"C:\\Windows\\a.mp3", 'inline; filename="C:__Windows__a.mp3"'),
        (".bashrc", 'inline; filename="_bashrc"'),
        ("..", 'inline; filename="_"'),
        # Unicode, UAX #9: this shows as "aexe.mp3".
        ("a\u202e3pm.exe", 'inline; filename="a_3pm.exe"'),
        ("\u2066a\u2069.mp3", 'inline; filename="_a_.mp3"'),
        ("a\r\nSet-Cookie: b=c\x00", 'inline; filename="a__Set-Cookie: b=c_"'),
        ("a\ud800.mp3", 'inline; filename="a_.mp3"'),
    ],
)
def test_disposition(name: str, expected: str) -> None:
    """RFC 6266, section 4, and its appendix D on what not to put in the plain parameter."""
    assert expected == content_disposition("inline", name)


def name_in(header: str) -> str:
    """What a client of RFC 6266 takes for the name."""
    _, found, encoded = header.partition("filename*=UTF-8''")
    return unquote(encoded, errors="strict") if found else header.partition('filename="')[2][:-1]


@given(
    st.text(min_size=1, max_size=60).filter(lambda text: text.isprintable() and not set(text) & set("/\\."))
)
def test_name_survives(name: str) -> None:
    """Whatever a decent name is, the header says exactly it."""
    assert name == name_in(content_disposition("attachment", name))


@given(st.text(st.characters(exclude_categories=()), max_size=600))
def test_any_name_becomes_one_line_of_ascii(name: str) -> None:
    """RFC 9110, section 5.5; and a client saves it where it should, whole, in any file system."""
    header = content_disposition("attachment", name)
    assert re.fullmatch(
        r'attachment; filename="[ !#$&-\[\]-~]*"'
        r"""(; filename\*=UTF-8''([A-Za-z0-9!#$&+.^_`|~-]|%[0-9A-F]{2})+)?""",
        header,
    )
    saved = name_in(header)
    assert len(saved.encode()) <= 255
    assert not saved.startswith(".") and not set(saved) & set("/\\\u202e\x00\r\n")


@pytest.mark.parametrize("letter", ["a", "é", "周", "🎵"])
def test_long_name_keeps_its_extension(letter: str) -> None:
    """255 bytes are what a file system holds; a character is not cut in two."""
    saved = name_in(content_disposition("inline", letter * 300 + ".flac"))
    size = len(letter.encode())
    assert letter * ((255 - 5) // size) + ".flac" == saved
    assert len(name_in(content_disposition("inline", "a." + letter * 300)).encode()) > 255 - size - 2
