"""Files that others made: what is read of them, what is not, and how much memory and time they may take."""

import json
import socket
import struct
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import soundfile
import torch
from accelerate import Accelerator
from selenium.webdriver.common.by import By

from images_that_sound.pipelines import SPECTROGRAMS, ImagesThatSoundPipeline, MelSpectrogram
from images_that_sound.pipelines.images_that_sound_score_distillation import CanvasRun, PixelCanvas
from images_that_sound.scripts import check, evaluate, generate, imprint, play, rank, sds, search, see
from images_that_sound.scripts.common.contact_sheet import write_contact_sheet
from images_that_sound.scripts.common.samples import (
    find_samples,
    is_made,
    read_picture,
    read_settings,
    write_picture,
    write_sample,
)
from images_that_sound.scripts.common.sounds import read_audio


MEL = MelSpectrogram(num_mel_bins=128)
PROMPTS = {"prompt": "a painting of trains, grayscale", "audio_prompt": "train whistling"}
SETTINGS = {**PROMPTS, "model": "embedded", "audio_model": None, "spectrogram": MEL.to_dict(), "problems": []}


def sample(folder: Path, **settings) -> Path:
    """A sample with a picture and a sound of one second."""
    numbers = np.random.default_rng(settings.get("seed", 0))
    picture = PIL.Image.fromarray(numbers.integers(0, 255, (128, 128), np.uint8))
    audio = numbers.uniform(-0.5, 0.5, 128 * 160).astype(np.float32)
    write_sample(folder, picture, picture, audio, 16000, {**SETTINGS, "seed": 0, **settings}, video=False)
    return folder


def png(folder: Path, **settings) -> str:
    write_picture(folder / "made.png", PIL.Image.new("L", (8, 8)), json.dumps({**PROMPTS, **settings}))
    return str(folder / "made.png")


# -------------------- What settings may say --------------------


def test_settings_of_a_file_are_those_of_the_call_the_seed_and_the_precision(tmp_path):
    more = {"report_to": "tensorboard", "device_map": {"unet": "cuda"}, "num_samples": 10**9, "output_dir": "/"}
    more |= {"device": "cuda", "enable_model_cpu_offload": True, "num_images_per_prompt": 10**9, "video": False}
    file = png(tmp_path, width=512, canvas_layout="folded", audio_weight=[0.5, 0.4], seed=3, dtype="bfloat16", **more)
    request = generate.parse_args(["--params_from", file])
    given = [request.call[name] for name in ("width", "canvas_layout", "audio_weight", "prompt")]
    assert given == [512, "folded", [0.5, 0.4], PROMPTS["prompt"]]
    assert request.samples.seeds == [3] and request.samples.num_images_per_prompt == 1 and request.samples.video
    assert request.models == type(request.models)(dtype="bfloat16") and request.report_to is None
    assert request.samples.output_dir.parent.name == "outputs"
    assert generate.parse_args(["--params_from", file, "--dtype", "float32"]).models.dtype == "float32"
    assert generate.parse_args(["--example", "bell"]).models.dtype == "float32"


def test_settings_of_every_kind_of_file(tmp_path):
    folder = sample(tmp_path / "sample", seed=5, width=256)
    for name in ("image.png", "audio.wav", "settings.json"):
        request = generate.parse_args(["--params_from", str(folder / name)])
        assert request.samples.seed == 5 and request.call["width"] == 256
    final = sds.parse_args(["--params_from", png(tmp_path, final_max_timestep=0.5)]).final_max_timestep
    assert final == 0.5


@pytest.mark.parametrize(
    "settings",
    [
        *({"prompt": 3}, {"seed": "3"}, {"seed": True}, {"seed": -1}, {"seed": 2**70}, {"dtype": "float64"}),
        *({"width": "wide"}, {"width": 8.5}, {"guidance_scale": "10"}, {"audio_weight": [0.5, "x"]}),
        *(
            {"image": ["a.png"]},
            {"sha256": "x"},
            {"canvas_layout": 3},
            {"cross_attention_kwargs": [1]},
            {"prompt": "a" * 400_000},
            {"model": 3},
        ),
    ],
)
def test_settings_of_another_kind_than_the_command_line_gives(tmp_path, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        generate.parse_args(["--params_from", png(tmp_path, **settings)])


def test_models_that_a_file_names_have_to_be_named_once_more(tmp_path):
    file = png(tmp_path, model="some/model; rm -r /", audio_model="auffusion/auffusion")
    words = "--model 'some/model; rm -r /' --audio_model auffusion/auffusion"
    with pytest.raises(ValueError, match=f"once more: {words}"):
        generate.parse_args(["--params_from", file])
    with pytest.raises(ValueError, match="once more: --audio_model auffusion/auffusion"):
        generate.parse_args(["--params_from", file, "--model", "some/model; rm -r /"])
    models = generate.parse_args(["--params_from", file, "--model", "x", "--audio_model", "y"]).models
    assert (models.model, models.audio_model) == ("x", "y")
    other = generate.parse_args(["--params_from", file, "--model", "embedded"]).models
    assert (other.model, other.audio_model) == ("embedded", None)
    both = generate.parse_args(["--params_from", png(tmp_path, model="embedded", audio_model="embedded")]).models
    assert (both.model, both.audio_model) == ("embedded", "embedded")


def test_how_the_audio_side_draws_is_that_of_the_file_where_it_is_the_same(tmp_path):
    riffusion = SPECTROGRAMS["riffusion"].to_dict()
    file = png(tmp_path, model="x", audio_model="y", spectrogram=riffusion)
    models = ["--params_from", file, "--model", "x", "--audio_model"]
    assert generate.parse_args([*models, "y"]).models.spectrogram == riffusion
    assert generate.parse_args([*models, "y", "--spectrogram", "auffusion"]).models.spectrogram == "auffusion"
    assert generate.parse_args([*models, "z"]).models.spectrogram is None
    file = png(tmp_path, model="embedded", spectrogram=riffusion)
    assert generate.parse_args(["--params_from", file]).models.spectrogram is None


def test_files_that_a_file_names_have_to_be_named_once_more(tmp_path):
    file = png(tmp_path, image="/secret/my picture.png")
    with pytest.raises(ValueError, match="once more: --image '/secret/my picture.png'"):
        imprint.parse_args(["--params_from", file])
    PIL.Image.new("L", (8, 8)).save(tmp_path / "mine.png")
    mine = ["--image", str(tmp_path / "mine.png")]
    assert imprint.parse_args(["--params_from", file, *mine]).files["image"][0].name == mine[1]


def test_models_that_samples_name_are_not_loaded(tmp_path, capsys):
    """Names of no repo: loading one would end with the Hub's error."""
    sample(tmp_path / "sample", model="no-such/model", audio_model="no-such/audio")
    check.main(["--sample_dir", str(tmp_path)])
    assert "name it by --vocoder no-such/audio" in capsys.readouterr().out
    words = "`sample_dir` names models, .* once more: --model no-such/model --audio_model no-such/audio"
    for command in (rank, evaluate):
        with pytest.raises(SystemExit, match=words):
            command.main(["--sample_dir", str(tmp_path), "--scores", "lift"])


def test_nothing_is_fetched_for_the_name_or_the_content_of_a_video(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/video.mp4"
        (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:10,\n{address}\n#EXT-X-ENDLIST\n")
        for name in (address, str(tmp_path / "list.mp4")):
            with pytest.raises(ValueError, match="can't be read"):
                read_settings(name)
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


# -------------------- The page --------------------


def test_nothing_of_a_sample_runs_in_the_page(tmp_path, browser):
    attack = "<img src=x onerror=\"document.title='taken'\">"
    folder = sample(tmp_path / "a 'b' \"c\" #1 %41 <i>&amp;" / "seed", prompt=attack, audio_prompt="\"'><b>", seed=7)
    write_contact_sheet(
        tmp_path / "index.html",
        attack,
        [
            {
                "folder": folder,
                "seed": 7,
                "size": (64, 64),
                "strips": 1,
                "captions": [attack],
                "problems": [attack],
                "remarks": [attack],
                "numbers": {attack: (0.5, 1), "x": (float("nan"), None)},
                "best": True,
            }
        ],
        [attack],
        attack,
    )
    browser.get((tmp_path / "index.html").as_uri())
    assert browser.title == attack
    assert browser.execute_script("return [...document.images].map((image) => image.naturalWidth)") == [128]
    assert [each.text for each in browser.find_elements(By.TAG_NAME, "dd")] == ["7", "0.500 place 1", "–"]


@pytest.mark.parametrize(
    "name, value",
    [
        ("seed", '0"><script>alert(1)</script>'),
        ("prompt", ["a"]),
        ("spectrogram", 1),
        ("problems", "none"),
        ("prompt", "a" * 100_000),
        ("negative_prompt", ["a" * 100_000]),
        ("seed", 1.5),
        ("gain_in_db", "loud"),
        ("gain_in_db", 1e9),
    ],
)
def test_tampered_settings_are_refused(tmp_path, name, value):
    folder = sample(tmp_path / "sample")
    (folder / "settings.json").write_text(json.dumps({**SETTINGS, name: value}))
    with pytest.raises(SystemExit, match=f"settings.json` holds no settings of images-that-sound: `{name}`"):
        rank.main(["--sample_dir", str(tmp_path)])
    assert not (tmp_path / "index.html").exists()


# -------------------- Broken samples --------------------


def test_broken_samples_never_win(tmp_path, capsys):
    sample(tmp_path / "sound", seed=1)
    sample(tmp_path / "noted", seed=2, problems=["the sound has values that are not finite"])
    silent = sample(tmp_path / "silent", seed=3)
    soundfile.write(silent / "audio.wav", np.zeros(128 * 160), 16000)
    faint = sample(tmp_path / "faint", seed=4, problems=[])
    soundfile.write(faint / "audio.wav", np.full(128 * 160, 0.05), 16000)
    settings = json.loads((faint / "settings.json").read_text())
    (faint / "settings.json").write_text(json.dumps({**settings, "gain_in_db": 40}))
    rank.main(["--sample_dir", str(tmp_path)])
    ranking = json.loads((tmp_path / "ranking.json").read_text())
    assert [ranking[f"by {name}"] for name in ("clip", "clap", "all, combined")] == [["sound"]] * 3
    page = (tmp_path / "index.html").read_text()
    assert page.count("the sound is inaudible") == 2 and "the sound has values that are not finite" in page
    said = capsys.readouterr().out
    assert "Without a place because of problems: 3 of 4 samples." in said
    scores = json.loads((silent / "scores.json").read_text(), parse_constant=pytest.fail)["scores"]
    assert scores == dict.fromkeys(("clip", "clip_log_probability", "clap", "clap_log_probability"))
    assert all("the sound is mostly noise" in text for text in (said, page)), "which voids no score"

    evaluate.main(["--sample_dir", str(tmp_path)])
    assert "3 of these have problems and do not count" in capsys.readouterr().out
    (*_, everything) = json.loads((tmp_path / "evaluation.json").read_text(), parse_constant=pytest.fail)
    assert (everything["num_samples"], everything["num_scored"], everything["clip_interval"]) == (4, 1, None)
    assert everything["clip"] == json.loads((tmp_path / "sound" / "scores.json").read_text())["scores"]["clip"]


@pytest.mark.parametrize("name", ["index.html", "ranking.json", "evaluation.json", "evaluation.csv"])
def test_files_of_others_are_not_replaced(tmp_path, name):
    sample(tmp_path / "sample")
    (tmp_path / name).write_text("another's")
    command = rank if name in ("index.html", "ranking.json") else evaluate
    with pytest.raises(SystemExit, match=f"{name}, which was not written here and would be replaced. Move it away."):
        command.main(["--sample_dir", str(tmp_path)])
    assert (tmp_path / name).read_text() == "another's"
    assert not (tmp_path / "sample" / "scores.json").exists(), "nothing is scored before"


def test_own_files_are_replaced(tmp_path):
    sample(tmp_path / "sample")
    for command, names in ((rank, ["index.html", "ranking.json"]), (evaluate, ["evaluation.json", "evaluation.csv"])):
        command.main(["--sample_dir", str(tmp_path)])
        before = [(tmp_path / name).stat().st_ino for name in names]
        command.main(["--sample_dir", str(tmp_path)])
        assert all((tmp_path / name).stat().st_ino != inode for name, inode in zip(names, before))


def test_damaged_scores_are_made_anew(tmp_path):
    folder = sample(tmp_path / "sample")
    models = {"clip_model": "embedded", "clap_model": "embedded"}
    for text in ("[]", "{", json.dumps({"models": models, "scores": {"clip": "<b>", "clap": [1]}})):
        (folder / "scores.json").write_text(text)
        rank.main(["--sample_dir", str(tmp_path)])
        assert {"clip", "clap"} < set(json.loads((folder / "scores.json").read_text())["scores"])


# -------------------- Pictures and sounds --------------------


def test_pictures_are_read_as_they_look(tmp_path):
    ramp = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    PIL.Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / "16.png")
    PIL.Image.fromarray(ramp.astype(np.float32) / 255).save(tmp_path / "float.tiff")
    PIL.Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "float255.tiff")
    PIL.Image.fromarray(ramp.astype(np.int32) * 257).save(tmp_path / "32.tiff")
    for name in ("16.png", "float.tiff", "float255.tiff", "32.tiff"):
        picture = read_picture(tmp_path / name)
        assert picture.mode == "L" and np.array_equal(picture, ramp), name
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(ramp).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_picture(tmp_path / "turned.png"), np.rot90(ramp, -1))
    for values in (ramp * np.float32(np.nan), ramp - np.float32(300)):
        PIL.Image.fromarray(values).save(tmp_path / "bad.tiff")
        with pytest.raises(ValueError, match="bad.tiff` has to be a picture of 8 or 16 bits, or of numbers"):
            read_picture(tmp_path / "bad.tiff")


def test_sounds_that_are_not_finite(tmp_path):
    for value in (np.nan, np.inf):
        audio = np.zeros(16000, np.float32)
        audio[100] = value
        soundfile.write(tmp_path / "sound.wav", audio, 16000, subtype="FLOAT")
        with pytest.raises(SystemExit, match="holds a sound with values that are not finite"):
            see.main([str(tmp_path / "sound.wav")])
    assert not (tmp_path / "sound.png").exists()


def test_see_and_play_overwrite_nothing_by_a_default_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    soundfile.write(tmp_path / "voice.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 16000), 16000)
    recording = (tmp_path / "voice.wav").read_bytes()
    see.main([str(tmp_path / "voice.wav")])
    for command, name in ((play, "voice.png"), (see, "voice.wav")):
        with pytest.raises(SystemExit, match="`--output` has to be given, since .* is there already"):
            command.main([str(tmp_path / name)])
    assert (tmp_path / "voice.wav").read_bytes() == recording
    play.main([str(tmp_path / "voice.png"), "--no-video", "--output", str(tmp_path / "again.wav")])


def test_files_that_appear_under_default_names_while_play_works_are_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    PIL.Image.new("L", (64, 256), 100).save("tone.png")
    made = play.play(Path("tone.png"), video=None)
    assert next(made) == Path("tone.wav")
    Path("tone-picture.png").write_text("somebody else's")
    with pytest.raises(ValueError, match="`--output` has to be given, since tone-picture.png is there already"):
        next(made)
    assert Path("tone-picture.png").read_text() == "somebody else's"


@pytest.mark.parametrize("suffix", ["jpg", "webp", "flac", "mp3"])
def test_files_without_settings_say_so(tmp_path, suffix):
    (tmp_path / f"file.{suffix}").write_bytes(b"anything")
    with pytest.raises(ValueError, match=f"file.{suffix}` holds no settings: only PNG, WAV and MP4 files"):
        read_settings(tmp_path / f"file.{suffix}")


def empty_png(path: Path, width: int, height: int) -> None:
    """A valid black picture of few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b""))


LIMITED = """
import resource, sys
from images_that_sound.scripts import {command}
limit = 2**30 + int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
{command}.main(sys.argv[1:])
"""


@pytest.mark.parametrize("width, height", [(13_000, 13_000), (50_000, 1), (9_000, 8), (2**20, 64)])
def test_small_pictures_that_are_large(tmp_path, width, height, run_fresh):
    """Refused within a gigabyte more than importing takes."""
    empty_png(tmp_path / "bomb.png", width, height)
    process = run_fresh(LIMITED.format(command="play"), str(tmp_path / "bomb.png"), directory=tmp_path)
    assert process.returncode == 1 and process.stderr.splitlines()[-1].startswith("error: "), process.stderr
    assert "has to be a picture of at most" in process.stderr or "has to be at most 32768 columns" in process.stderr


@pytest.mark.parametrize("rate, frames, channels", [(10_000_019, 100, 1), (1, 100, 1), (8000, 5_000_000, 1)])
def test_small_sounds_that_are_large(tmp_path, rate, frames, channels, run_fresh):
    soundfile.write(tmp_path / "bomb.wav", np.zeros((frames, channels), np.int16), rate)
    process = run_fresh(LIMITED.format(command="see"), str(tmp_path / "bomb.wav"), directory=tmp_path)
    assert process.returncode == 1 and process.stderr.splitlines()[-1].startswith("error: "), process.stderr
    assert "samples per second" in process.stderr or "has to be at most 600 seconds" in process.stderr


def test_honest_sounds_of_odd_rates(tmp_path):
    time = np.arange(11127) / 11127
    soundfile.write(tmp_path / "odd.wav", 0.5 * np.sin(2 * np.pi * 440 * time), 11127)
    audio = read_audio(tmp_path / "odd.wav", 16000)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert len(audio) == 16000
    np.testing.assert_allclose(audio[500:-500], expected[500:-500], atol=2e-3)


# -------------------- Where samples are --------------------


@pytest.mark.parametrize("name", [".hidden", ".hidden/.more", "a/.b/c", "plain.part"])
def test_samples_are_found_where_they_were_written(tmp_path, monkeypatch, name):
    folder = sample(tmp_path / name / "seed-000000")
    assert find_samples(tmp_path) == find_samples(tmp_path / name) == [folder]
    (tmp_path / name / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / name / "deeper")
    assert find_samples("..") == [Path("../seed-000000")]
    monkeypatch.chdir(folder)
    assert find_samples(".") == [Path(".")]


def test_what_is_no_whole_sample_is_not_found(tmp_path):
    whole = sample(tmp_path / "whole")
    sample(tmp_path / ".seed-000000.abc.part" / "seed-000000")
    (sample(tmp_path / "half") / "audio.wav").unlink()
    (tmp_path / ".vscode").mkdir()
    (tmp_path / ".vscode" / "settings.json").write_text("{}")
    (tmp_path / "linked").symlink_to(whole)
    assert find_samples(tmp_path) == [whole]


def test_what_is_in_a_sample_s_place_is_refused_before_the_computation(tmp_path):
    settings = {name: value for name, value in SETTINGS.items() if name != "problems"}
    assert is_made(sample(tmp_path / "whole"), settings) and not is_made(tmp_path / "none", settings)
    (sample(tmp_path / "half") / "image.png").unlink()
    (tmp_path / "empty").mkdir()
    for name in ("half", "empty"):
        with pytest.raises(ValueError, match=f"{name}, which is no whole sample. Move it away"):
            is_made(tmp_path / name, settings)
    (tmp_path / "linked").symlink_to(tmp_path / "whole")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    for name in ("linked", "dangling"):
        with pytest.raises(ValueError, match=f"{name} has to be a folder, but is a link"):
            is_made(tmp_path / name, settings)
    with pytest.raises(ValueError, match="made with other settings"):
        is_made(tmp_path / "whole", {**settings, "prompt": "other"})


def test_links_in_the_place_of_our_folders_are_not_followed(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "others").mkdir()
    quick = ["--output_dir", str(tmp_path / "out"), "--width", "128", "--num_inference_steps", "2"]
    prompts = [word for name, value in PROMPTS.items() for word in (f"--{name}", value)]
    (tmp_path / "out" / ".search").symlink_to(tmp_path / "others")
    with pytest.raises(SystemExit, match=".search has to be a folder, but is a link"):
        search.main([*quick, *prompts, "--num_samples", "2", "--keep", "1"])
    assert not list((tmp_path / "others").iterdir())


def test_links_at_names_of_partial_files_are_not_followed(tmp_path, stable_diffusion_folder):
    target = tmp_path / "target"
    target.write_text("another's")
    (tmp_path / "sample-0.pt.part").symlink_to(target)
    make_optimizer = partial(torch.optim.SGD, lr=0.1)
    canvas = partial(PixelCanvas, 8, 8)
    run = CanvasRun(torch.Generator(), Accelerator(cpu=True), canvas, make_optimizer, tmp_path / "sample-0.pt")
    run.save()
    assert (tmp_path / "sample-0.pt").is_file() and not (tmp_path / "sample-0.pt").is_symlink()

    (tmp_path / "pipe").mkdir()
    (tmp_path / "pipe" / "model_index.json.part").symlink_to(target)
    ImagesThatSoundPipeline.from_pretrained(stable_diffusion_folder).save_config(tmp_path / "pipe")
    assert (tmp_path / "pipe" / "model_index.json").is_file()

    folder = sample(tmp_path / "sample")
    for name in ("check.png", "check.json"):
        (folder / name).symlink_to(target)
        (folder / f".{name}.part").symlink_to(target)
    check.main(["--sample_dir", str(folder)])
    assert not (folder / "check.png").is_symlink() and not (folder / "check.json").is_symlink()
    assert target.read_text() == "another's"


def test_whoever_comes_second_keeps_the_first_sample(tmp_path):
    folder = sample(tmp_path / "sample")
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    sample(tmp_path / "sample")
    with pytest.raises(ValueError, match="made with other settings"):
        sample(tmp_path / "sample", prompt="other")
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    assert [each.name for each in tmp_path.iterdir()] == ["sample"]
