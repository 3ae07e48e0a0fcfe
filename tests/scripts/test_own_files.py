"""Your pictures and sounds in the commands: read, recorded, and found again."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest
import scipy.signal
import soundfile
import torch

from images_that_sound.pipelines import ImagesThatSoundImg2ImgPipeline
from images_that_sound.pipelines.images_that_sound_picture_reading import on_ground
from images_that_sound.scripts import generate, imprint, search
from images_that_sound.scripts.common.inputs import with_files
from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.scripts.common.samples import read_picture, write_picture
from images_that_sound.scripts.common.sounds import read_audio


PROMPTS = {"prompt": "a painting of furry kittens, grayscale", "audio_prompt": "birds singing sweetly"}
WORDS = [word for name, value in PROMPTS.items() for word in (f"--{name}", value)]
QUICK = ["--num_inference_steps", "4", "--device", "cpu", "--no-video"]
STEREO = 44100


def head(width: int, height: int) -> np.ndarray:
    """A bright disc on black in the upper half, so that which side is up is seen."""
    rows, columns = np.mgrid[:height, :width]
    inside = np.hypot(rows - height / 4, columns - width / 2) < width / 4
    return np.where(inside[..., None], np.uint8([230, 190, 160]), np.uint8(0))


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Path:
    """A photo of a phone held upright, and a recording in stereo of one second."""
    folder = tmp_path_factory.mktemp("material")
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise to be seen upright
    PIL.Image.fromarray(np.rot90(head(96, 128))).save(folder / "portrait.jpg", exif=exif, quality=95)
    time = np.arange(STEREO) / STEREO
    left, right = (0.3 * np.sin(2 * np.pi * hertz * time) for hertz in (700, 3000))
    soundfile.write(folder / "song.flac", np.stack([left, right], axis=1), STEREO)
    return folder


@pytest.fixture(scope="module")
def sample(material, tmp_path_factory) -> Path:
    """One of the recording with the photo painted into it."""
    folder = tmp_path_factory.mktemp("samples")
    files = ["--image", str(material / "portrait.jpg"), "--audio", str(material / "song.flac")]
    generate.main([*files, "--strength", "0.5", *WORDS, *QUICK, "--output_dir", str(folder)])
    return folder / "seed-000000"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_portrait_and_a_recording_reach_the_pipeline_as_one_sees_and_hears_them(material, sample):
    pipe = ImagesThatSoundImg2ImgPipeline.from_pretrained(EMBEDDED)
    pipe.set_progress_bar_config(disable=True)
    with PIL.Image.open(material / "portrait.jpg") as photo:
        upright = np.rot90(np.asarray(photo), -1)
    assert upright[:64].mean() > 10 * upright[64:].mean()
    stereo, _ = soundfile.read(material / "song.flac")
    mono = scipy.signal.resample_poly(stereo.mean(axis=1), 160, 441).astype(np.float32)
    generator = torch.Generator().manual_seed(0)
    arguments = {"image": upright / np.float32(255), "audio": mono, "strength": 0.5, "num_inference_steps": 4}
    output = pipe(*PROMPTS.values(), **arguments, generator=[generator])
    picture = np.asarray(PIL.Image.open(sample / "image.png")).astype(int)
    difference = np.abs(picture - np.asarray(output.images[0]))
    # Both resample the sound, with other roundings.
    assert difference.max() <= 2 and difference.mean() < 0.1


def test_settings_name_the_files_and_what_they_held(material, sample):
    settings = json.loads((sample / "settings.json").read_text())
    files = {"image": str(material / "portrait.jpg"), "audio": str(material / "song.flac"), "mask_image": None}
    assert {name: settings[name] for name in files} == files and settings["strength"] == 0.5
    assert settings["sha256"] == {
        str(material / name): sha256(material / name) for name in ("portrait.jpg", "song.flac")
    }


def test_params_from_repeats_it_with_files_beside_it(material, sample, tmp_path):
    """The sample's folder was handed on with the photo in it, while the recording is where it was."""
    handed = shutil.copytree(sample, tmp_path / "handed")
    moved = shutil.move(material / "portrait.jpg", handed / "portrait.jpg")
    try:
        generate.main(
            ["--params_from", str(handed / "image.png"), "--no-video", "--output_dir", str(tmp_path / "out")]
        )
    finally:
        shutil.move(moved, material / "portrait.jpg")
    for name in ("image.png", "audio.wav", "settings.json"):
        assert (tmp_path / "out" / "seed-000000" / name).read_bytes() == (sample / name).read_bytes()


def test_of_a_song_the_beginning_is_taken(material, tmp_path):
    call = ["--audio", str(material / "song.flac"), *WORDS, *QUICK, "--output_dir", str(tmp_path / "out")]
    generate.main([*call, "--audio_length_in_s", "0.48"])
    assert PIL.Image.open(tmp_path / "out" / "seed-000000" / "image.png").size == (48, 128)
    of_the_sound = "`audio_length_in_s` has to be in the 1.00 s of `audio`, but is"
    no_number = "`audio_length_in_s` has to be (a number of at most|in the 1.00 s)"
    for seconds, words in (("1.01", of_the_sound), ("0", of_the_sound), ("nan", no_number), ("inf", no_number)):
        with pytest.raises(SystemExit, match=words):
            generate.main([*call, "--audio_length_in_s", seconds, "--seed", "1"])


def test_a_mask_keeps_what_is_black_in_it(tmp_path):
    PIL.Image.fromarray(head(128, 128)).save(tmp_path / "head.png")
    mask = np.repeat(np.uint8([[0, 255]]), 64, axis=1).repeat(128, axis=0)
    PIL.Image.fromarray(mask).save(tmp_path / "mask.png")
    files = ["--image", str(tmp_path / "head.png"), "--mask_image", str(tmp_path / "mask.png")]
    call = ["--width", "128", "--strength", "0.5", "--output_dir", str(tmp_path / "out")]
    generate.main([*files, *call, *WORDS, *QUICK, "--num_inference_steps", "12"])
    picture = np.asarray(PIL.Image.open(tmp_path / "out" / "seed-000000" / "image.png").convert("L")).astype(float)
    away = np.abs(picture - head(128, 128).mean(axis=-1))
    assert away[:, :56].mean() < 10 < 15 < away[:, 72:].mean(), "the VAE's own error is 7"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--strength", "0.5"], "^`strength` can't be given without `image` or `audio`"),
        (["--mask_start_in_s", "0.5"], "^`mask_start_in_s` can't be given without `image` or `audio`"),
        (["--mask_image", "portrait.jpg"], "^`mask_image` can't be given without `image` or `audio`"),
        (["--audio", "song.flac", "--invert"], "^`invert` can't be given without `image`"),
        (["--image", "portrait.jpg", "--audio_start_in_s", "1"], "^`audio_start_in_s` can't be given without `audio`"),
        (["--audio", "song.flac", "--resize_mode", "crop"], "^`resize_mode` can't be given without `image`"),
        (["--image", "portrait.jpg", "--magnitude_ratio", "1"], "^`magnitude_ratio` can't be given without `audio`"),
        (["--image", "missing.jpg"], "^`missing.jpg` can't be read as a picture"),
        (["--image", "pipe"], "^`pipe` can't be read as a picture: It is no file"),
        (["--audio", "."], r"^`\.` can't be read as a sound: It is no file"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(material, tmp_path, monkeypatch, arguments, words):
    for name in ("portrait.jpg", "song.flac"):
        (tmp_path / name).symlink_to(material / name)
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with pytest.raises(ValueError, match=words):
        generate.parse_args([*WORDS, *arguments])


def test_a_sketch_on_paper_begins_as_light_lines_on_black(tmp_path, capsys):
    paper = PIL.Image.new("L", (64, 64), 250)
    paper.paste(10, (28, 16, 36, 48))
    paper.save(tmp_path / "sketch.png")
    pipe = ImagesThatSoundImg2ImgPipeline.from_pretrained(EMBEDDED)
    call = ["--image", str(tmp_path / "sketch.png"), *WORDS]
    for words, invert, lines in (([], None, 245), (["--no-invert"], False, 10), (["--invert"], True, 245)):
        request = generate.parse_args([*call, *words])
        assert request.call["resize_mode"] == "center" and request.recorded.get("invert") is invert
        picture = with_files(request.call, request, pipe)["image"].convert("L")
        assert picture.getpixel((32, 32)) == lines
        assert ("--no-invert keeps them" in capsys.readouterr().err) == (invert is None)


def test_files_that_are_missing_or_have_changed(material, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(material / "portrait.jpg", "photo.jpg")
    made = {**PROMPTS, "image": "photo.jpg", "sha256": {"photo.jpg": sha256(Path("photo.jpg"))}}
    Path("sample").mkdir()
    write_picture(Path("sample/image.png"), PIL.Image.new("L", (8, 8)), json.dumps({**made, "strength": 0.25}))
    again = ["--params_from", "sample/image.png"]
    request = generate.parse_args(again)
    assert request.call["strength"] == 0.25 and request.files["image"][0].path == Path("photo.jpg")
    Path("photo.jpg").rename("sample/photo.jpg")
    assert generate.parse_args(again).files["image"][0].path == Path("sample/photo.jpg")

    Path("photo.jpg").write_bytes(b"other")
    assert generate.parse_args(again).files["image"][0].path == Path("sample/photo.jpg")
    Path("sample/photo.jpg").unlink()
    with pytest.raises(ValueError, match="`image` 'photo.jpg', which has changed since: .* now: --image photo.jpg"):
        generate.parse_args(again)
    taken = generate.parse_args([*again, "--image", "photo.jpg"]).files["image"][0]
    assert taken.sha256 == sha256(Path("photo.jpg")) != made["sha256"]["photo.jpg"]
    Path("photo.jpg").unlink()
    with pytest.raises(ValueError, match="`image` 'photo.jpg', which is missing"):
        generate.parse_args(again)
    with pytest.raises(ValueError, match="made with `image` 'photo.jpg', which this command can't take"):
        search.parse_args(again)


def test_a_sample_s_own_picture_is_not_taken_for_one_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = {**PROMPTS, "image": "earlier/image.png", "sha256": {"earlier/image.png": "0" * 64}}
    write_picture(Path("image.png"), PIL.Image.new("L", (8, 8)), json.dumps(made))
    with pytest.raises(ValueError, match="`image` 'earlier/image.png', which is missing"):
        generate.parse_args(["--params_from", "image.png"])


def test_other_machines_are_not_asked_for_a_file(tmp_path):
    """Two slashes begin the name of another machine on Windows, and nothing special here."""
    PIL.Image.new("L", (8, 8)).save(tmp_path / "photo.png")
    (tmp_path / "sample").mkdir()
    name = f"/{tmp_path / 'photo.png'}"
    assert name.startswith("//") and Path(name).is_file()
    made = {**PROMPTS, "image": name, "sha256": {name: sha256(tmp_path / "photo.png")}}
    write_picture(tmp_path / "sample" / "image.png", PIL.Image.new("L", (8, 8)), json.dumps(made))
    with pytest.raises(ValueError, match="which is missing"):
        generate.parse_args(["--params_from", str(tmp_path / "sample" / "image.png")])


def test_a_prompt_counts_more_than_a_file_of_an_earlier_sample_in_its_place(material, tmp_path):
    photo = material / "portrait.jpg"
    made = {"audio_prompt": "bell ringing", "image": str(photo), "sha256": {str(photo): sha256(photo)}}
    write_picture(tmp_path / "image.png", PIL.Image.new("L", (8, 8)), json.dumps(made))
    again = ["--params_from", str(tmp_path / "image.png")]
    assert imprint.parse_args(again).files["image"][0].path == photo
    other = imprint.parse_args([*again, "--prompt", "castle towers"])
    assert other.files == {} and other.call["prompt"] == "castle towers"


def test_default_folders_distinguish_files_by_what_they_hold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = set()
    for content in (b"one", b"two"):
        Path("cat.png").write_bytes(content)
        for command in (generate, imprint):
            prompts = WORDS if command is generate else WORDS[2:]
            folders.add(command.parse_args(["--image", "cat.png", *prompts]).samples.output_dir)
    assert len(folders) == 4 and all("-cat-" in folder.name for folder in folders)


def test_transparent_parts_are_silence(tmp_path):
    """Whatever colour is hidden there: white, as programs that draw leave it."""
    picture = PIL.Image.new("LA", (3, 1), (255, 0))
    picture.putpixel((0, 0), (200, 255))
    picture.putpixel((1, 0), (200, 51))
    for each in (picture, picture.convert("RGBA"), picture.convert("RGBA").quantize()):
        each.save(tmp_path / "logo.png")
        for silence, expected in ((0, [200, 40, 0]), (1, [200, 244, 255])):
            seen = np.asarray(on_ground(read_picture(tmp_path / "logo.png"), silence).convert("L"))
            assert np.abs(seen[0].astype(int) - expected).max() <= 1
    plain = PIL.Image.new("L", (2, 2))
    assert on_ground(plain, 1) is plain


def test_a_phone_s_recording_is_read(tmp_path):
    rng = np.random.default_rng(0)
    stereo = (rng.integers(-20000, 20000, (2, 44100)) / 2**15).astype(np.float32)
    recording = tmp_path / "memo.m4a"
    with av.open(str(recording), "w") as container:
        stream = container.add_stream("alac", rate=44100, layout="stereo")
        frame = av.AudioFrame.from_ndarray(stereo, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = 44100, 0
        cut = av.AudioResampler(format=stream.format, layout="stereo", frame_size=stream.frame_size)
        for piece in [*cut.resample(frame), *cut.resample(None), None]:
            container.mux(stream.encode(piece))
    soundfile.write(tmp_path / "memo.wav", stereo.T, 44100, "FLOAT")
    expected, heard = (read_audio(tmp_path / f"memo.{end}", 16000) for end in ("wav", "m4a"))
    np.testing.assert_allclose(heard[: len(expected)], expected, atol=1e-4)
    assert not heard[len(expected) :].any()
    # A list of other files, which such a name must not make anybody read.
    for content in (recording.read_bytes()[:5000], b"\0\0\0\x20ftypM4A #EXTM3U\n#EXTINF:1,\nother.wav\n"):
        recording.write_bytes(content)
        with pytest.raises(ValueError, match="can't be read as a sound"):
            read_audio(recording, 16000)
