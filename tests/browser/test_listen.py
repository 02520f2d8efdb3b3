"""The listening page in a real browser: it plays, seeks, goes on after a pause, and says what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contracts.best_source import LEASE_LIFE_S, PAUSE_S
from tests.browser.conftest import Origin, add_recording, audio, until
from tests.origin.conftest import NOW, content_of

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

# 317 MB: Chromium buffers a few MiB of a track, and at most some tens.
LONG_S = 30 * 60


def shown(browser: Chrome, selector: str) -> str:
    from selenium.webdriver.common.by import By

    return browser.find_element(By.CSS_SELECTOR, selector).text


def click(browser: Chrome, selector: str) -> None:
    from selenium.webdriver.common.by import By

    browser.find_element(By.CSS_SELECTOR, selector).click()


def plays_on(browser: Chrome) -> None:
    """The position advances from where it is."""
    at = audio(browser, "a.currentTime")
    until(browser, lambda: audio(browser, "!a.paused && !a.error && a.currentTime") > at, "it does not play")


def test_it_plays_with_its_title_artist_and_length(browser: Chrome, origin: Origin) -> None:
    handle = add_recording(origin.nas, "夜.wav", 200, '<script>alert(1)</script> "夜" & more', "歌手 <b>")
    browser.get(origin.page(handle, duration_s=200))
    assert shown(browser, "h1") == '<script>alert(1)</script> "夜" & more'
    assert browser.title == '<script>alert(1)</script> "夜" & more'
    assert (shown(browser, ".artist"), shown(browser, ".length")) == ("歌手 <b>", "3:20")
    until(browser, lambda: audio(browser, "a.readyState") > 0, "it does not load")
    assert audio(browser, "a.paused")
    click(browser, ".play")
    plays_on(browser)
    assert audio(browser, "document.querySelector('.play').ariaLabel") == "Pause"
    click(browser, ".play")
    until(browser, lambda: audio(browser, "a.paused"), "it does not pause")


def test_it_seeks_by_a_range_in_a_file_too_large_to_be_buffered(browser: Chrome, origin: Origin) -> None:
    browser.get(origin.page(add_recording(origin.nas, "long.wav", LONG_S)))
    click(browser, ".play")
    plays_on(browser)
    for at_s in (1500, 600):
        before = len(origin.asked)
        audio(browser, f"a.currentTime = {at_s}")
        until(browser, lambda: audio(browser, f"a.currentTime > {at_s}"), "it does not go on there")  # noqa: B023
        asked = [int(each[1].removeprefix("bytes=").partition("-")[0]) for each in origin.asked[before:]]
        wanted = at_s * 44_100 * 4
        assert [first for first in asked if abs(first - wanted) < 4 << 20], (asked, wanted)
    assert not [each for each in origin.asked if each[2] not in (200, 206)]


def test_a_link_that_expired_in_a_pause_is_renewed_and_playing_goes_on_there(
    browser: Chrome, origin: Origin
) -> None:
    """The stream token lives half an hour longer than its track; the lease lives on."""
    handle = add_recording(origin.nas, "long.wav", LONG_S, "A long pause")
    browser.get(origin.page(handle, duration_s=LONG_S))
    click(browser, ".play")
    plays_on(browser)
    click(browser, ".play")
    first = audio(browser, "a.src")
    origin.clock.now += LONG_S + PAUSE_S + 1
    click(browser, ".play")
    audio(browser, "a.currentTime = 1200")
    until(browser, lambda: audio(browser, "a.src") != first, "it was not renewed")
    assert origin.ranges(410)
    until(browser, lambda: audio(browser, "a.currentTime") > 1200, "it does not go on there")
    assert audio(browser, "a.currentTime") < 1230
    plays_on(browser)
    assert shown(browser, ".notice") == ""


def test_a_pause_stays_a_pause_when_the_link_is_renewed(browser: Chrome, origin: Origin) -> None:
    browser.get(origin.page(add_recording(origin.nas, "long.wav", LONG_S), duration_s=LONG_S))
    until(browser, lambda: audio(browser, "a.readyState") > 0, "it does not load")
    first = audio(browser, "a.src")
    origin.clock.now += LONG_S + PAUSE_S + 1
    audio(browser, "a.currentTime = 900")
    until(browser, lambda: audio(browser, "a.src") != first, "it was not renewed")
    until(browser, lambda: audio(browser, "a.readyState > 1 && a.currentTime === 900"), "it is not there")
    assert audio(browser, "a.paused")


def test_a_page_whose_lease_is_over_says_so(browser: Chrome, origin: Origin) -> None:
    browser.get(origin.page(add_recording(origin.nas, "long.wav", LONG_S), duration_s=LONG_S))
    until(browser, lambda: audio(browser, "a.readyState") > 0, "it does not load")
    origin.clock.now += LEASE_LIFE_S
    audio(browser, "a.currentTime = 900")
    until(browser, lambda: "open for too long" in shown(browser, ".notice"), "nothing is said")
    assert shown(browser, ".again") == "Open it again"


def test_a_dead_link_says_so(browser: Chrome, origin: Origin) -> None:
    page = origin.page(add_recording(origin.nas, "a.wav", 10), NOW + 60)
    for address, expected in ((page[:-1], "This link is not valid"), (page, "This link has ended")):
        origin.clock.now = NOW + 60
        browser.get(address)
        assert shown(browser, "h1") == expected
        assert shown(browser, ".notice")
        assert not audio(browser, "a.hasAttribute('src')")


def test_a_file_that_is_gone_says_so(browser: Chrome, origin: Origin) -> None:
    page = origin.page(add_recording(origin.nas, "a.wav", 10))
    (origin.nas.music / "a.wav").unlink()
    browser.get(page)
    until(browser, lambda: "not there any more" in shown(browser, ".notice"), "nothing is said")


def test_a_format_that_the_browser_cannot_play_says_so(browser: Chrome, origin: Origin) -> None:
    browser.get(origin.page(origin.nas.add("a.ape", content_of(100_000)), file_name="a.ape"))
    until(browser, lambda: "cannot play this kind" in shown(browser, ".notice"), "nothing is said")
    assert shown(browser, ".save") == "Save the file"
