"""The page of the demo, served by its one command without a network, in a real browser."""

import base64
import io
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest
import soundfile
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from images_that_sound.scripts import generate


APP = Path(__file__).parents[2] / "demo" / "app.py"
PROMPT, AUDIO_PROMPT = "a painting of castle towers, grayscale", "bell ringing"
STEPS = "num_inference_steps"
BEGINNING = "Press “Make it”, choose an example, or describe a picture and a sound."
STOPPED = "Stopped. What you see is half made."
READ = "return document.querySelector(arguments[0])"
# What there is to say where something that a test waits for does not come.
SEEN = """
const requests = performance.getEntriesByType("resource").filter((each) => each.name.includes("gradio_api"));
return {
  status: document.querySelector("#status")?.textContent,
  messages: window.messages,
  requests: requests.slice(-10).map((each) => [each.name, Math.round(each.startTime), Math.round(each.duration)]),
  now: Math.round(performance.now()),
};
"""
# Keeps the messages, which go after a while.
LISTEN = """
window.messages = [];
performance.setResourceTimingBufferSize(5000);
const listen = () => document.querySelectorAll("[data-testid=toast-text]").forEach((each) => {
  if (!messages.includes(each.textContent)) messages.push(each.textContent);
});
new MutationObserver(listen).observe(document.body, { childList: true, subtree: true });
"""
PLAY = """
const done = arguments[0], audio = document.querySelector("#player audio"), places = [];
const playhead = document.querySelector("#player .playhead");
audio.ontimeupdate = () => places.push([audio.currentTime, parseFloat(playhead.style.left)]);
audio.onended = () => setTimeout(() => done([audio.duration, playhead.style.left, places]), 100);
audio.onerror = () => done(null);
audio.play();
"""


@pytest.fixture(scope="module")
def address(browser, tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("demo")
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "GRADIO_TEMP_DIR": str(home)}
    with open(home / "log.txt", "w") as log:
        process = subprocess.Popen(
            [sys.executable, APP, "--server_port", str(port), "--device", "cpu"], env=env, stdout=log, stderr=log
        )
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(600):
                assert process.poll() is None, (home / "log.txt").read_text()
                try:
                    urllib.request.urlopen(address).close()
                    break
                except OSError:
                    time.sleep(0.5)
            yield address
            # Or the page would go on drawing through all tests that follow.
            browser.get("about:blank")
        finally:
            process.terminate()
            process.wait()
    assert "Traceback" not in (home / "log.txt").read_text()


class Page:
    """The page as a visitor handles it."""

    def __init__(self, browser, address: str) -> None:
        self.browser = browser
        browser.set_window_size(1400, 1600)
        browser.get(address)
        browser.execute_script(LISTEN)
        self.open_way("From words", "player")

    def open_way(self, title: str, player: str) -> None:
        """Opens one of the tabs at the top."""

        def is_open() -> bool:
            # A click that comes before the page is ready is lost.
            tabs = self.browser.find_elements(By.CSS_SELECTOR, "#ways button[role=tab]")
            for tab in tabs:
                if tab.text == title:
                    tab.click()
            return bool(self.browser.find_elements(By.CSS_SELECTOR, f"#{player} img"))

        self.wait(is_open)

    def wait(self, condition, seconds: float = 120):
        try:
            waiting = WebDriverWait(self.browser, seconds, 0.05, [StaleElementReferenceException])
            return waiting.until(lambda browser: condition())
        except TimeoutException as error:
            raise AssertionError(self.browser.execute_script(SEEN), self.browser.get_log("browser")[-5:]) from error

    def fill(self, name: str, text: str | int) -> None:
        kinds = ("textarea", "input[type=number]", "input[type=text]", "input:not([type])")
        fields = ", ".join(f"#{name} {kind}" for kind in kinds)
        (field,) = self.wait(lambda: self.browser.find_elements(By.CSS_SELECTOR, fields))
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(str(text), Keys.TAB)

    def ask(self, prompt: str = PROMPT, audio_prompt: str = AUDIO_PROMPT, seed: int = 6, candidates: int = 1) -> None:
        fields = {"prompt": prompt, "audio_prompt": audio_prompt, "seed": seed, "candidates": candidates}
        for name, value in fields.items():
            self.fill(name, value)

    def set_steps(self, steps: int) -> None:
        self.press("#tuning button")
        field = f"#{STEPS} input[type=number]"
        self.wait(lambda: self.browser.find_element(By.CSS_SELECTOR, field).is_displayed())
        self.fill(STEPS, steps)

    def choose(self, name: str, place: int) -> None:
        """Chooses one of several words."""
        self.press(f"#{name} input[type=radio]", place)

    def draw(self, name: str, *moves: tuple[int, int]) -> None:
        """Draws a line from the middle of an editor by the mouse."""
        self.wait(lambda: self.browser.find_elements(By.CSS_SELECTOR, f"#{name} canvas"))
        board = self.browser.find_element(By.CSS_SELECTOR, f"#{name} canvas")
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", board)
        # Its background comes later than itself, and nothing in the page says when.
        time.sleep(2)
        mouse = ActionChains(self.browser).move_to_element(board).click_and_hold()
        for move in moves:
            mouse = mouse.move_by_offset(*move)
        mouse.release().perform()

    def press(self, selector: str, place: int = 0) -> None:
        """Clicks where something is when the click comes: on a page that is still moving, the mouse may miss it."""

        def found() -> list:
            elements = self.browser.find_elements(By.CSS_SELECTOR, selector)[place:]
            return elements and elements[0].is_displayed() and elements[0].is_enabled()

        self.wait(found)
        self.browser.execute_script("document.querySelectorAll(arguments[0])[arguments[1]].click()", selector, place)

    def click(self, name: str) -> None:
        self.press(f"#{name}")

    def open_tab(self, title: str) -> None:
        if not self.has_open_tab():
            self.press("#rest button")
            self.wait(self.has_open_tab)
        tabs = self.browser.find_elements(By.CSS_SELECTOR, "#rest button[role=tab]")
        next(tab for tab in tabs if tab.text == title).click()

    def has_open_tab(self) -> bool:
        return any(tab.is_displayed() for tab in self.browser.find_elements(By.CSS_SELECTOR, "#rest button[role=tab]"))

    def source(self, selector: str) -> str:
        return self.browser.execute_script(f"{READ}?.src", selector) or ""

    @property
    def status(self) -> str:
        return self.browser.execute_script(f"{READ}.textContent", "#status").strip()

    @property
    def messages(self) -> list[str]:
        """All messages that have appeared on the page."""
        return self.browser.execute_script("return messages")

    def picture(self) -> np.ndarray:
        return picture_of(base64.b64decode(self.source("#player img").partition(",")[2]))

    def audio(self) -> np.ndarray:
        return soundfile.read(io.BytesIO(base64.b64decode(self.source("#player audio").partition(",")[2])))[0]

    def is_done(self) -> bool:
        return bool(self.source("#player audio")) and self.status.startswith("Seed ")


def picture_of(content: bytes) -> np.ndarray:
    return np.asarray(PIL.Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def made(browser, address) -> Page:
    """The page after a run of three candidates in five steps, with what was seen on the way."""
    page = Page(browser, address)
    page.ask(candidates=3)
    page.set_steps(5)
    page.seen, page.said = [page.source("#player img")], [page.status]
    page.click("start")
    end = time.monotonic() + 300
    while not page.is_done():
        assert time.monotonic() < end, page.said
        for now, earlier in ((page.source("#player img"), page.seen), (page.status, page.said)):
            if now != earlier[-1]:
                earlier.append(now)
        time.sleep(0.02)
    return page


def test_picture_appears_while_it_denoises(made):
    assert made.said[0] == BEGINNING
    steps = [status for status in made.said if status.startswith("Denoising: ")]
    assert len(steps) >= 3 and all(status.endswith("of 5 steps …") for status in steps)
    assert len(made.seen) >= 4
    last = made.picture()
    assert last.shape == (128, 512, 3) and last.std() > 20
    previews = [picture_of(base64.b64decode(source.partition(",")[2])) for source in made.seen[1:-1]]
    assert all(preview.shape == last.shape and preview.std() > 5 for preview in previews)


def test_candidates_are_ranked_and_can_be_chosen(made):
    captions = [each.text for each in made.browser.find_elements(By.CSS_SELECTOR, "#gallery .caption-label")]
    words = "(clear|unsure|not found)"
    assert len(captions) == 3 and all(re.fullmatch(f"picture {words}, sound {words}", each) for each in captions)
    seeds = []
    for place in range(3):
        earlier = made.status
        made.press("#gallery .thumbnail-item", place)
        # Between two texts, the status shows for a moment how long it takes.
        made.wait(lambda: made.status.startswith("Seed ") and (made.status != earlier or not seeds))  # noqa: B023
        seeds.append(int(made.status.split()[1].rstrip(".")))
    assert sorted(seeds) == [6, 7, 8]
    made.press("#gallery .thumbnail-item", 0)
    made.wait(lambda: made.status.startswith(f"Seed {seeds[0]}."))
    assert made.status.startswith(f"Seed {seeds[0]}.") and "Unknown" not in made.status
    first = made.picture()
    made.press("#gallery .thumbnail-item", 2)
    made.wait(lambda: made.status.startswith(f"Seed {seeds[2]}."))
    made.wait(lambda: np.abs(made.picture() - first).mean() > 5)
    made.press("#gallery .thumbnail-item", 0)
    made.wait(lambda: made.status.startswith(f"Seed {seeds[0]}."))
    made.wait(lambda: np.array_equal(made.picture(), first))


def test_playhead_moves_with_the_sound(made):
    duration, last, places = made.browser.execute_async_script(PLAY)
    assert duration == pytest.approx(5.12, abs=0.01)
    assert float(last.rstrip("%")) == pytest.approx(100, abs=1)
    assert len(places) > 5
    # The event comes up to a frame before the playhead is drawn.
    np.testing.assert_allclose([left for _, left in places], [100 * t / duration for t, _ in places], atol=5)


def test_click_into_the_picture_plays_from_there(made):
    made.browser.execute_script("window.scrollTo(0, 0)")
    made.browser.find_element(By.CSS_SELECTOR, "#player .canvas").click()
    made.wait(lambda: made.browser.execute_script(f"{READ}.currentTime", "#player audio") > 2.5)
    made.browser.execute_script(f"{READ}.pause()", "#player audio")
    assert made.browser.execute_script(f"{READ}.currentTime", "#player audio") < 5.12


def test_settings_make_the_same_again(made, tmp_path, monkeypatch):
    made.open_tab("Settings")
    made.wait(lambda: made.browser.find_element(By.CSS_SELECTOR, "#python .cm-content").is_displayed())
    command = made.browser.find_element(By.CSS_SELECTOR, "#command .cm-content").text.replace("\n", " ")
    words = shlex.split(command)
    assert words[:2] == ["images-that-sound", "generate"]
    generate.main([*words[2:], "--device", "cpu", "--no-video", "--output_dir", str(tmp_path / "command")])
    (folder,) = (tmp_path / "command").iterdir()
    (tmp_path / "python").mkdir()
    monkeypatch.chdir(tmp_path / "python")
    exec("\n".join(each.text for each in made.browser.find_elements(By.CSS_SELECTOR, "#python .cm-line")), {})
    for home in (folder, tmp_path / "python"):
        # Batches of other sizes round otherwise.
        assert np.abs(picture_of((home / "image.png").read_bytes()) - made.picture()).max() <= 2
        # Griffin-Lim's phases tell rounding apart.
        assert np.corrcoef(soundfile.read(home / "audio.wav")[0], made.audio())[0, 1] > 0.999


def test_a_video_can_be_had(made, tmp_path):
    made.open_tab("Video")
    made.click("film")
    made.wait(lambda: made.browser.execute_script(f"{READ}?.readyState", "#video video") == 4)
    assert made.browser.execute_script(f"{READ}.duration", "#video video") == pytest.approx(5.12, abs=0.05)
    made.browser.execute_cdp_cmd("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    made.click("mp4")
    (file,) = made.wait(lambda: list(tmp_path.glob("*.mp4")))
    with av.open(file) as video:
        assert video.streams.video[0].width and video.streams.audio


def test_all_of_a_run_is_downloaded(made, tmp_path):
    made.browser.execute_cdp_cmd("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    made.click("archive")
    (file,) = made.wait(lambda: list(tmp_path.glob("*.zip")))
    with zipfile.ZipFile(file) as archive:
        names = {Path(name).parent.name for name in archive.namelist() if name.endswith("/image.png")}
        assert names == {"seed-000006", "seed-000007", "seed-000008"}
        seed = int(made.status.split()[1].rstrip("."))
        folder = f"images-that-sound/seed-{seed:06d}"
        np.testing.assert_array_equal(picture_of(archive.read(f"{folder}/image.png")), made.picture())
        audio, _ = soundfile.read(io.BytesIO(archive.read(f"{folder}/audio.wav")))
        np.testing.assert_array_equal(audio, made.audio())


@pytest.mark.slow
def test_colours_are_stopped_and_made(made):
    made.open_tab("Colour")
    made.click("paint")
    made.wait(lambda: "Painting" in made.browser.find_element(By.ID, "colors").text)
    made.click("unpaint")
    made.wait(lambda: "Painting" not in made.browser.find_element(By.ID, "colors").text)
    assert not made.source("#colors img")
    made.click("paint")
    made.wait(lambda: made.source("#colors img"))
    with urllib.request.urlopen(made.source("#colors img")) as file:
        colors = picture_of(file.read())
    assert colors.shape == (128, 512, 3)
    assert np.ptp(colors, axis=-1).mean() > 5


def test_more_like_it_and_what_was_earlier(made):
    first = made.picture()
    made.fill("candidates", 1)
    made.click("more")
    made.wait(lambda: not made.is_done())
    made.wait(made.is_done)
    # It begins with the picture, which is still to be seen in it and beside it.
    assert np.corrcoef(made.picture().ravel(), first.ravel())[0, 1] > 0.5
    assert made.source("#began img")
    assert len(made.browser.find_elements(By.CSS_SELECTOR, "#history .thumbnail-item")) == 2
    made.press("#history .thumbnail-item", 1)
    made.wait(lambda: made.source("#player audio") and np.array_equal(made.picture(), first))
    assert len(made.browser.find_elements(By.CSS_SELECTOR, "#gallery .thumbnail-item")) == 3
    # Both are still there after the page is loaded again.
    again = Page(made.browser, made.browser.current_url)
    again.wait(lambda: len(again.browser.find_elements(By.CSS_SELECTOR, "#history .thumbnail-item")) == 2)
    again.press("#history .thumbnail-item", 1)
    again.wait(lambda: again.source("#player audio") and np.array_equal(again.picture(), first))


def test_examples_are_chosen_and_what_is_missing_is_said(browser, address):
    page = Page(browser, address)

    def filled() -> list[str]:
        fields = ("#prompt input, #prompt textarea", "#audio_prompt input, #audio_prompt textarea", "#seed input")
        return [browser.execute_script(f"{READ}.value", field) for field in fields]

    assert filled() == [PROMPT, AUDIO_PROMPT, "8"] and page.audio().size
    page.press("#examples .thumbnail-item", 1)
    page.wait(lambda: filled() == ["a painting of furry kittens, grayscale", "a kitten meowing for attention", "7"])
    page.wait(lambda: page.status.startswith("An example: kitten · a kitten meowing"))
    page.wait(lambda: browser.execute_script(f"{READ}.currentTime", "#player audio") > 0.2)

    page.fill("prompt", Keys.DELETE)
    page.click("start")
    page.wait(lambda: page.messages == ["Say both what to see and what to hear."])
    assert not browser.find_element(By.ID, "stop").is_enabled()
    page.ask()
    page.fill("seed", Keys.DELETE)
    page.click("start")
    page.wait(lambda: len(page.messages) == 2)
    assert page.messages[1].startswith("The seed has to be a whole number")
    # The next run closes the messages of the one before.
    assert len(browser.find_elements(By.CSS_SELECTOR, "[data-testid=toast-text]")) <= 1
    assert "An example: " in page.status

    # A misspelled word is a question, and no error; nothing is made.
    page.ask(prompt="a painting of caste towers, grayscale")
    page.click("start")
    page.wait(lambda: browser.find_element(By.ID, "question").text.startswith("Did you mean “castle” for “caste”?"))
    page.wait(lambda: len(page.messages) == 3)
    time.sleep(1)
    assert len(page.messages) == 3 and page.messages[2].startswith("Did you mean")
    assert not browser.find_element(By.ID, "stop").is_enabled() and "An example: " in page.status


def test_a_picture_is_hidden_at_once_and_its_light_and_dark_can_be_swapped(browser, address, tmp_path):
    logo = PIL.Image.new("RGBA", (96, 96))
    logo.paste((0, 0, 0, 255), (24, 24, 72, 72))
    logo.save(tmp_path / "logo.png")
    page = Page(browser, address)
    page.open_way("Hide a picture", "hide_player")
    browser.find_element(By.CSS_SELECTOR, "#hide_picture input[type=file]").send_keys(str(tmp_path / "logo.png"))
    page.wait(lambda: browser.find_element(By.ID, "hide_status").text.startswith("Press play. Your picture is at 0.0"))
    assert "light and dark are swapped" in browser.find_element(By.ID, "hide_swap").text
    assert page.source("#hide_seen img")
    img = browser.find_element(By.CSS_SELECTOR, "#hide_player img")
    width, height = (int(img.get_property(f"natural{side}")) for side in ("Width", "Height"))
    assert img.size["width"] / img.size["height"] == pytest.approx(width / height, rel=0.02)
    shown = page.source("#hide_player img")
    spectrogram = picture_of(base64.b64decode(shown.partition(",")[2])).mean(axis=-1)
    # The bell's 16 kHz have room from 3.2 to 7.2 kHz, of 8.
    band = spectrogram[int(0.1 * len(spectrogram)) : int(0.6 * len(spectrogram))]
    middle = band[int(0.3 * len(band)) : int(0.7 * len(band)), int(0.3 * band.shape[1]) : int(0.6 * band.shape[1])]
    assert middle.mean() > band[: int(0.2 * len(band))].mean() + 40
    audio = soundfile.read(io.BytesIO(base64.b64decode(page.source("#hide_player audio").partition(",")[2])))[0]
    assert audio.std() > 0.01
    page.press("#hide_swap input")
    page.wait(lambda: page.source("#hide_player img") != shown)
    # The other way: the logo is painted into a sound that is made of words.
    page.open_way("Paint it in", "imprint_player")
    before = page.source("#imprint_player img")
    browser.find_element(By.CSS_SELECTOR, "#imprint_picture input[type=file]").send_keys(str(tmp_path / "logo.png"))
    page.wait(lambda: page.source("#imprint_seen img"))
    browser.execute_cdp_cmd("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    said = browser.find_element(By.ID, "imprint_status")
    page.fill("imprint_ratio", 1)
    page.click("imprint_start")
    page.click("imprint_stop")
    page.wait(lambda: said.text == "Stopped." and page.source("#imprint_player img") == before)
    page.click("imprint_start")
    page.wait(lambda: said.text.startswith("Press play."))
    assert page.source("#imprint_player img") != before
    painted = picture_of(base64.b64decode(page.source("#imprint_player img").partition(",")[2])).mean(axis=-1)
    page.click("imprint_wav")
    (file,) = page.wait(lambda: list(tmp_path.glob("painted*.wav")))
    audio, sampling_rate = soundfile.read(file)
    assert len(audio) / sampling_rate == pytest.approx(painted.shape[1] / 100, abs=0.02) and audio.std() > 0.001
    # Around the logo, within its picture, nothing is heard; beside it the sound stays.
    assert painted[:16, 196:316].max() < 3 and painted[-16:, 196:316].max() < 3
    assert painted[:, :160].mean() > 5 and painted[48:80, 236:276].max() > 10


def test_a_narrow_page_goes_to_the_result_and_a_run_is_stopped(browser, address):
    page = Page(browser, address)
    page.ask()
    page.set_steps(100)
    page.press("#tuning button")
    browser.set_window_size(500, 900)
    try:
        browser.execute_script("scrollTo(0, 0)")
        assert browser.execute_script(f"{READ}.getBoundingClientRect().top", "#status") > 450
        page.click("start")
        page.wait(lambda: browser.execute_script(f"{READ}.getBoundingClientRect().top", "#status") < 100)
        page.wait(lambda: page.status.startswith("Denoising: "))
        page.click("stop")
        page.wait(lambda: page.status == STOPPED)
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    finally:
        browser.set_window_size(1400, 1600)
    picture = page.source("#player img")
    page.click("start")
    page.wait(lambda: page.status.startswith("Denoising: "))
    # The stopped run is not heard of any more.
    assert page.status.endswith("of 100 steps …") and not page.source("#player audio")
    page.wait(lambda: page.source("#player img") != picture)


@pytest.fixture
def phone(browser):
    """The browser with the screen of a phone."""
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    yield browser
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_on_a_phone_scenes_become_a_panorama_that_loops_and_a_board_has_room(phone, address):
    page = Page(phone, address)
    page.choose("begins", 1)
    page.wait(lambda: phone.find_elements(By.CSS_SELECTOR, "#drawing canvas"))
    board = phone.find_element(By.CSS_SELECTOR, "#drawing canvas")

    def black_rows() -> int:
        shown = picture_of(board.screenshot_as_png)
        return (shown[:, shown.shape[1] // 2] == 0).all(axis=-1).sum()

    page.wait(lambda: black_rows() >= 200)
    page.choose("begins", 0)
    page.ask()
    page.choose("scenes", 1)
    page.wait(lambda: phone.execute_script(f"{READ}.value", "#audio_length_in_s input") == "16")
    fields = {"scene_1_begin": 4, "scene_1_picture": "kitten", "scene_1_sound": "a growl", "audio_length_in_s": 8}
    for name, value in fields.items():
        page.fill(name, value)
    page.press("#loop input")
    page.set_steps(5)
    page.click("start")
    page.wait(page.is_done)
    assert page.picture().shape == (128, 800, 3) and len(page.audio()) == 8 * 16000
    assert phone.execute_script(f"{READ}.loop", "#player audio")
    assert phone.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    # The whole above, and below a part that goes with the sound.
    measured = "[...document.querySelectorAll('#player img')].map((each) => [each.width, each.height])"
    whole, part = phone.execute_script(f"return {measured}")
    assert whole[0] < 390 and part == [1250, 200]
    phone.execute_script(
        "const audio = document.querySelector('#player audio'); audio.currentTime = 6; return audio.play()"
    )
    inside = """
    const [long, head] = ["#player .long", "#player .long .playhead"].map((each) => document.querySelector(each));
    const [of, at] = [long, head].map((each) => each.getBoundingClientRect());
    return long.scrollLeft > 600 && of.left <= at.left && at.right <= of.right;
    """
    page.wait(lambda: phone.execute_script(inside))
    phone.execute_script(f"{READ}.pause()", "#player audio")
    # Its words come back into the fields of scenes.
    page.choose("scenes", 0)
    page.click("more")
    page.wait(lambda: phone.execute_script(f"{READ}?.value", "#scene_1_sound input") == "a growl")
    page.click("stop")


def test_a_run_survives_a_visitor_who_left(browser, address):
    page = Page(browser, address)
    assert page.status.endswith(BEGINNING)
    page.ask("a dragon")
    page.set_steps(5)
    page.click("start")
    page.wait(page.is_done)
    assert page.picture().std() > 20 and "“dragon”" in page.status and "castle" in page.status


def test_a_drawing_sounds_is_taken_home_and_repainted(browser, address, tmp_path):
    page = Page(browser, address)
    assert not any(browser.find_elements(By.CSS_SELECTOR, f"#{name}") for name in ("drawing", "canvas", "sound"))
    page.ask("a picture", "birds singing", seed=2)
    page.set_steps(5)
    page.choose("begins", 1)
    page.draw("drawing", (60, -20), (60, 30))
    page.click("start")
    page.wait(page.is_done)
    made = page.picture()
    browser.execute_cdp_cmd("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.click("archive")
    (file,) = page.wait(lambda: list(tmp_path.glob("*.zip")))
    with zipfile.ZipFile(file) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "images-that-sound" / "seed-000002"
    drawing = picture_of((folder / "drawing.png").read_bytes())
    # To the right of the middle, at its height and above.
    assert drawing[:, 260:400].max() == 255 and not drawing[:, :240].any() and not drawing[100:].any()
    assert made[drawing[:, : made.shape[1]] == 255].mean() > 1.3 * made.mean()
    command = ["--params_from", str(folder / "settings.json"), "--device", "cpu", "--no-video"]
    generate.main([*command, "--output_dir", str(tmp_path / "again")])
    again = picture_of((tmp_path / "again" / "seed-000002" / "image.png").read_bytes())
    assert np.abs(again - made).max() <= 2

    page.click("repaint")
    page.draw("canvas", (20, 0), (20, 0))
    page.click("start")
    page.wait(lambda: page.is_done() and not np.array_equal(page.picture(), made))
    changed = np.abs(page.picture() - made).mean(axis=-1)
    assert changed[:, 260:320].mean() > 3 * changed[:, :200].mean()
