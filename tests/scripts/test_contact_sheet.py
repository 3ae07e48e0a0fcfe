"""The page of `rank` in a real browser, from disk and without a network."""

import html
import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from selenium.webdriver.common.by import By

from images_that_sound.scripts.common.contact_sheet import write_contact_sheet
from images_that_sound.scripts.common.samples import write_audio, write_picture


PROMPT = 'castles <b>"&amp;"</b> towers'


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("page with spaces")
    samples = []
    for seed, clip in ((0, 0.2), (1, 0.9), (2, 0.5)):
        folder = home / f"seed-{seed:06d}"
        folder.mkdir()
        write_picture(folder / "image.png", PIL.Image.new("L", (64, 16), 80 * seed), "")
        write_audio(folder / "audio.wav", 0.1 * np.sin(np.arange(8000, dtype=np.float32) / 5), 16000)
        if seed == 1:
            (folder / "video.mp4").touch()
        numbers = {"combined": (1 - clip, seed + 1), "clip": (clip, None)}
        words = {"captions": [PROMPT], "problems": ["too <loud>"] * (seed == 2), "remarks": []}
        samples.append(
            {
                **{"folder": folder, "seed": seed, "size": (64, 16), "strips": 1 + seed % 2},
                **{"numbers": numbers, "best": seed == 1, **words},
            }
        )
    write_contact_sheet(home / "index.html", "A page", samples, ["Three <samples>."], "the <best>")
    return home / "index.html"


def seeds(browser) -> list[str]:
    return [card.find_element(By.TAG_NAME, "dd").text for card in browser.find_elements(By.TAG_NAME, "article")]


def test_page_shows_pictures_and_plays_sounds(browser, page):
    browser.get(page.as_uri())
    assert browser.find_element(By.TAG_NAME, "h1").text == "A page"
    assert "Three <samples>." in browser.page_source.replace("&lt;", "<").replace("&gt;", ">")
    widths = browser.execute_script("return [...document.images].map((image) => image.naturalWidth)")
    assert widths == [64] * 3
    cards = browser.find_elements(By.TAG_NAME, "article")
    assert all(PROMPT in card.text for card in cards) and not browser.find_elements(By.CSS_SELECTOR, "article b")
    assert ["too <loud>" in card.text for card in cards] == [False, False, True]
    assert [link.get_attribute("href") for link in browser.find_elements(By.TAG_NAME, "a")] == [
        (page.parent / "seed-000001" / "video.mp4").as_uri()
    ]
    seconds = browser.execute_async_script(
        "const done = arguments[0], audio = document.querySelector('audio');"
        "audio.onended = () => done([audio.duration, audio.currentTime]); audio.onerror = () => done(null);"
        "audio.play();"
    )
    assert seconds == pytest.approx([0.5, 0.5], abs=0.01)
    assert browser.find_element(By.CSS_SELECTOR, "article.best dl").text.split() == [
        *("best", "seed", "1", "combined", "0.100", "place", "2", "clip", "0.900", "video")
    ]
    assert "best the <best>" in browser.find_element(By.TAG_NAME, "body").text


def test_the_playhead_moves_with_the_sound_row_by_row(browser, page):
    browser.get(page.as_uri())
    places = browser.execute_async_script(
        "const done = arguments[0], card = document.querySelectorAll('article')[1];"
        "const audio = card.querySelector('audio');"
        "const { left, top, width, height } = card.querySelector('img').getBoundingClientRect(), found = [];"
        "audio.addEventListener('seeked', () => { const { style } = card.querySelector('.playhead');"
        " found.push([style.left, style.top, style.height].map(parseFloat)); audio.pause();"
        " if (found.length < 2) { audio.currentTime = 0.4; } else { done(found); } });"
        "card.querySelector('img').dispatchEvent(new MouseEvent('click',"
        " { bubbles: true, clientX: left + width / 2, clientY: top + height / 4 }));"
    )
    (left, *row), paused = places
    assert 49 < left < 100 and row == [0, 50], "it plays on from where the click was"
    assert paused == pytest.approx([60, 50, 50], abs=1)


@pytest.mark.parametrize("strips, seconds", [(1, 60), (2, 60), (1, 600)])
def test_long_pictures_are_broken_into_rows(browser, tmp_path, strips, seconds):
    """Gray rises with time: each row shows its own part of it, and the page is as wide as the window."""
    columns, rows = 100 * seconds // strips, 128 * strips
    ramp = np.linspace(40, 250, 100 * seconds, dtype=np.float32).reshape(strips, 1, columns).repeat(128, axis=1)
    write_picture(tmp_path / "image.png", PIL.Image.fromarray(ramp.reshape(rows, columns).astype(np.uint8)), "")
    write_audio(tmp_path / "audio.wav", np.zeros(16000, np.float32), 16000)
    words = {"captions": [PROMPT], "problems": [], "remarks": [], "numbers": {}, "best": False}
    sample = {"folder": tmp_path, "seed": 0, "size": (columns, rows), "strips": strips, **words}
    write_contact_sheet(tmp_path / "index.html", "A page", [sample], [], "")
    browser.set_window_size(1200, 900)
    browser.get((tmp_path / "index.html").as_uri())
    number = browser.execute_script(
        "const canvas = document.querySelector('.canvas'), pieces = document.querySelectorAll('.piece').length;"
        "return [Number(canvas.dataset.rows), pieces, canvas.clientHeight, canvas.scrollHeight,"
        " document.documentElement.scrollWidth - innerWidth, document.images[0].naturalWidth]"
    )
    assert number[0] == number[1] == -(-100 * seconds // strips // 1024) * strips
    assert number[2] <= 576 and number[4] <= 0 and number[5] == columns
    if seconds == 60:
        assert number[2] == number[3], "a minute is seen at once"
        box = browser.find_element(By.CLASS_NAME, "strips")
        seen = np.asarray(PIL.Image.open(io.BytesIO(box.screenshot_as_png)).convert("L"), float)
        lines = [seen[int((i + 0.5) * len(seen) / number[0]), 4:-4] for i in range(number[0])]
        found = np.concatenate(lines)
        assert np.abs(found - np.linspace(40, 250, len(found))).max() < 6


@pytest.mark.parametrize("width, columns", [(1400, 3), (420, 1)])
def test_cards_use_the_width_and_do_not_exceed_it(browser, page, width, columns):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.get(page.as_uri())
        boxes = [card.rect for card in browser.find_elements(By.TAG_NAME, "article")]
        assert len({box["x"] for box in boxes}) == columns
        right = max(box["x"] + box["width"] for box in boxes)
        assert width - 40 < right < width
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_columns_sort_the_page(browser, page):
    browser.get(page.as_uri())
    assert seeds(browser) == ["0", "1", "2"]
    buttons = {button.text: button for button in browser.find_elements(By.CSS_SELECTOR, "nav button")}
    assert list(buttons) == ["seed", "combined", "clip"]
    buttons["clip"].click()
    assert seeds(browser) == ["1", "2", "0"]
    buttons["clip"].click()
    assert seeds(browser) == ["0", "2", "1"]
    buttons["seed"].click()
    assert seeds(browser) == ["2", "1", "0"]


def test_page_needs_nothing_from_elsewhere(page):
    text = html.unescape(page.read_text(encoding="utf-8"))
    assert "http" not in text and "//" not in text
