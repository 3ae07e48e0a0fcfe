"""The page of `rank` in a real browser, from disk and without a network."""

import html
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
        numbers = {"combined": 1 - clip, "clip": clip}
        samples.append({"folder": folder, "seed": seed, "captions": [PROMPT], "numbers": numbers, "best": seed == 1})
    write_contact_sheet(home / "index.html", "A page", samples, ["Three <samples>."])
    return home / "index.html"


def seeds(browser) -> list[str]:
    return [row.find_elements(By.TAG_NAME, "td")[1].text for row in browser.find_elements(By.CSS_SELECTOR, "tbody tr")]


def test_page_shows_pictures_and_plays_sounds(browser, page):
    browser.get(page.as_uri())
    assert browser.find_element(By.TAG_NAME, "h1").text == "A page"
    assert "Three <samples>." in browser.page_source.replace("&lt;", "<").replace("&gt;", ">")
    widths = browser.execute_script("return [...document.images].map((image) => image.naturalWidth)")
    assert widths == [64] * 3
    assert PROMPT in browser.find_element(By.CSS_SELECTOR, "td.sample").text
    assert not browser.find_elements(By.CSS_SELECTOR, "td b")
    seconds = browser.execute_async_script(
        "const done = arguments[0], audio = document.querySelector('audio');"
        "audio.onended = () => done([audio.duration, audio.currentTime]); audio.onerror = () => done(null);"
        "audio.play();"
    )
    assert seconds == pytest.approx([0.5, 0.5], abs=0.01)
    assert browser.find_element(By.CSS_SELECTOR, "tr.best td:nth-child(2)").text == "1"


def test_columns_sort_the_page(browser, page):
    browser.get(page.as_uri())
    assert seeds(browser) == ["0", "1", "2"]
    buttons = {button.text: button for button in browser.find_elements(By.CSS_SELECTOR, "th button")}
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
