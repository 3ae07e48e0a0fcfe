"""Search, rank, evaluate and compare on the embedded checkpoint: files, numbers, resuming and messages."""

import csv
import json
import re
import shutil
import sys

import numpy as np
import PIL.Image
import pytest
import scipy.linalg
import soundfile
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from images_that_sound.pipelines import MelSpectrogram
from images_that_sound.scripts import compare, evaluate, generate, rank, search
from images_that_sound.scripts.common.models import EMBEDDED
from images_that_sound.selection import CLAPScore, CLIPScore


QUICK = ["--width", "128", "--num_inference_steps", "5", "--no-video"]
PROMPTS = ["--prompt", "a painting of castle towers, grayscale", "--audio_prompt", "bell ringing"]
SEARCH = [*QUICK, *PROMPTS, "--num_samples", "6", "--keep", "1", "--rungs", "0.4", "--shares", "0.34"]
SEARCH += ["--scheduler", "ddim"]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched")
    search.main([*SEARCH, "--output_dir", str(folder), "--num_images_per_prompt", "4"])
    return folder


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Six samples of two pairs of prompts."""
    folder = tmp_path_factory.mktemp("samples")
    generate.main([*QUICK, *PROMPTS, "--num_samples", "4", "--output_dir", str(folder / "castle")])
    other = ["--prompt", "a painting of trains, grayscale", "--audio_prompt", "train whistling"]
    generate.main([*QUICK, *other, "--num_samples", "2", "--output_dir", str(folder / "train")])
    return folder


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


# -------------------- Search --------------------


def test_search_makes_samples_that_generate_would_make(searched, tmp_path):
    folders = sorted(searched.glob("seed-*"))
    assert len(folders) == 1, "what is kept and nothing else"
    seed = int(folders[0].name.removeprefix("seed-"))
    same = [*QUICK, *PROMPTS, "--scheduler", "ddim"]
    generate.main([*same, "--seed", str(seed), "--output_dir", str(tmp_path)])
    pictures = [np.asarray(PIL.Image.open(root / folders[0].name / "image.png"), int) for root in (searched, tmp_path)]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    # Griffin-Lim's phases tell rounding apart, so that sounds are compared by their spectrograms.
    sounds = [
        soundfile.read(root / folders[0].name / "audio.wav", dtype="float32")[0] for root in (searched, tmp_path)
    ]
    canvases = [MelSpectrogram(num_mel_bins=128).audio_to_canvas(torch.from_numpy(sound)) for sound in sounds]
    assert (canvases[0] - canvases[1]).abs().mean() < 0.01
    settings = [read(root / folders[0].name / "settings.json") for root in (searched, tmp_path)]
    gains = [each.pop("gain_in_db") for each in settings]
    assert settings[0] == settings[1] and gains[0] == pytest.approx(gains[1], abs=0.05)


def test_search_reports_what_it_spent_and_found(searched):
    report = read(searched / "search.json")
    first, last = report["rungs"]
    assert (first["num_candidates"], last["num_candidates"]) == (6, 3)
    assert (first["step_rows"], last["step_rows"]) == (2 * 4, 3 * 4)
    assert report["unet_rows"] == 6 * 8 + 3 * 12
    assert report["unet_rows_of_full_runs"] == 6 * 20
    scores = {int(seed): values for seed, values in last["scores"].items()}
    assert len(scores) == 3 and sorted(scores) == first["kept"]
    assert report["best"] == last["kept"] == [max(scores, key=lambda seed: sureness(scores[seed]))]
    assert set(first["scores"]["0"]) == {"clip", "clap", "clip_log_probability", "clap_log_probability"}
    (finalist,) = report["finalists"].values()
    assert finalist == pytest.approx(scores[report["best"][0]], abs=0.2), "judged again from its files"
    assert finalist["clip"] == pytest.approx(scores[report["best"][0]]["clip"], abs=0.02)


def sureness(scores):
    return scores["clip_log_probability"] + scores["clap_log_probability"]


def test_search_goes_on_and_is_refused_with_other_settings(searched, capsys):
    before = {path: path.stat().st_mtime_ns for path in searched.rglob("*.safetensors")}
    search.main([*SEARCH, "--output_dir", str(searched)])
    assert {path: path.stat().st_mtime_ns for path in searched.rglob("*.safetensors")} == before
    assert "This took 70% of the work that all 6 in full would have been." in capsys.readouterr().out
    with pytest.raises(SystemExit, match="begun with other settings"):
        search.main([*SEARCH, "--output_dir", str(searched), "--guidance_scale", "3"])


def test_with_a_scheduler_that_can_t_stop_all_candidates_run_in_full(tmp_path):
    few = [*QUICK, *PROMPTS, "--num_samples", "2", "--keep", "1", "--scheduler", "unipc"]
    search.main([*few, "--output_dir", str(tmp_path / "search")])
    (end,) = read(tmp_path / "search" / "search.json")["rungs"]
    assert end["fraction"] == 1 and end["num_candidates"] == 2 and end["judge_rows"] == 0
    (folder,) = (tmp_path / "search").glob("seed-*")
    (seed,) = end["kept"]
    assert folder.name == f"seed-{seed:06d}"
    assert end["scores"][str(seed)] == max(end["scores"].values(), key=lambda scores: sum_of_logarithms(scores))
    whole = [*QUICK, *PROMPTS, "--scheduler", "unipc", "--seed", str(seed)]
    generate.main([*whole, "--output_dir", str(tmp_path / "generate")])
    pictures = [
        np.asarray(PIL.Image.open(tmp_path / way / folder.name / "image.png"), int) for way in ("search", "generate")
    ]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    with pytest.raises(SystemExit, match="`scheduler` has to go from step to step .* if there are `rungs`"):
        search.main([*few, "--rungs", "0.4", "--shares", "0.5", "--output_dir", str(tmp_path / "rungs")])


def sum_of_logarithms(scores):
    return sum(value for name, value in scores.items() if name.endswith("log_probability"))


def test_search_by_the_models_own_lift(tmp_path):
    few = ["--num_samples", "2", "--shares", "0.5"]
    search.main([*SEARCH, *few, "--scores", "lift", "--output_dir", str(tmp_path)])
    report = read(tmp_path / "search.json")
    assert report["rungs"][0]["judge_rows"] == 2 * 2 * 16
    assert set(next(iter(report["finalists"].values()))) == {"image_lift", "audio_lift"}
    (file,) = tmp_path.glob("seed-*/scores.json")
    other = ["--sample_dir", str(tmp_path), "--scores", "lift", "--dtype", "bfloat16"]
    rank.main(other)
    judged, time = read(file), file.stat().st_mtime_ns
    assert judged["models"]["lift_by"]["dtype"] == "bfloat16"
    assert judged["scores"]["image_lift"] != next(iter(report["finalists"].values()))["image_lift"]
    rank.main(other)
    assert file.stat().st_mtime_ns == time


# -------------------- Rank --------------------


def test_rank_scores_each_sample_and_names_the_best(samples, capsys):
    rank.main(["--sample_dir", str(samples), "--top", "2"])
    printed = capsys.readouterr().out
    clip = CLIPScore.from_pretrained(EMBEDDED, subfolder="clip", dtype=torch.float32)
    clap = CLAPScore.from_pretrained(EMBEDDED, subfolder="clap", dtype=torch.float32)
    for folder in samples.glob("*/seed-*"):
        settings = read(folder / "settings.json")
        picture = np.asarray(PIL.Image.open(folder / "image.png").convert("RGB"), np.float32) / 255
        audio, rate = soundfile.read(folder / "audio.wav", dtype="float32")
        scores = read(folder / "scores.json")["scores"]
        canvas = torch.from_numpy(picture).permute(2, 0, 1)[None]
        assert scores["clip"] == pytest.approx(clip(canvas, [settings["prompt"]]).item(), abs=1e-6)
        assert scores["clap"] == pytest.approx(clap(audio[None], rate, [settings["audio_prompt"]]).item(), abs=1e-6)
    ranking = read(samples / "ranking.json")
    by_clip = sorted(samples.glob("*/seed-*"), key=lambda folder: -read(folder / "scores.json")["scores"]["clip"])
    assert ranking["by clip"] == [str(folder.relative_to(samples)) for folder in by_clip[:2]]
    sure = {
        str(file.parent.relative_to(samples)): sureness(read(file)["scores"])
        for file in samples.glob("*/*/scores.json")
    }
    assert ranking["by all, combined"] == sorted(sure, key=sure.get, reverse=True)[:2]
    assert f'data-value="{np.exp(max(sure.values()))}"' in (samples / "index.html").read_text(encoding="utf-8")
    assert ranking["in the top 20% by each"] in ([], ranking["by clip"][:1])
    if not ranking["in the top 20% by each"]:
        assert "in the top 20% by each: no sample" in printed
    named = {*ranking["by clip"], *ranking["by clap"], *ranking["by all, combined"]}
    assert sorted(re.findall(r"seed-\d+", printed)) == sorted(name.split("/")[1] for name in named), "each once"
    best_score = read(samples / ranking["by clip"][0] / "scores.json")["scores"]["clip"]
    assert re.search(rf"{best_score:.3f} +\(1\.\) .*{ranking['by clip'][0]}", printed)


def test_rank_says_when_no_sample_is_good_by_every_score(samples, tmp_path, capsys):
    folder = shutil.copytree(samples / "castle", tmp_path / "copy")
    models = {"clip_model": "embedded", "clap_model": "embedded"}
    for i, sample in enumerate(sorted(folder.iterdir())):
        logarithms = {"clip_log_probability": i / 10 - 1, "clap_log_probability": -i / 10}
        facts = {"models": models, "scores": {"clip": i / 10, "clap": -i / 10, **logarithms}}
        (sample / "scores.json").write_text(json.dumps(facts))
    rank.main(["--sample_dir", str(folder), "--share", "0.5"])
    assert "in the top 50% by each: no sample" in capsys.readouterr().out
    assert "None is in the top 50% by each score" in (folder / "index.html").read_text()


def test_scores_are_kept_completed_and_made_anew_by_other_models(samples, tmp_path):
    folder = shutil.copytree(samples / "train", tmp_path / "copy")
    rank.main(["--sample_dir", str(folder)])
    files = sorted(folder.glob("*/scores.json"))
    times = [file.stat().st_mtime_ns for file in files]
    rank.main(["--sample_dir", str(folder)])
    assert [file.stat().st_mtime_ns for file in files] == times
    facts = read(files[1])
    old = {**facts, "scores": {name: facts["scores"][name] for name in ("clip", "clap")}}
    files[1].write_text(json.dumps(old))
    rank.main(["--sample_dir", str(folder)])
    assert read(files[1])["scores"] == pytest.approx(facts["scores"]) and files[0].stat().st_mtime_ns == times[0]
    rank.main(["--sample_dir", str(folder), "--clip_model", str(EMBEDDED / "clip")])
    assert read(files[0])["models"]["clip_model"] == str(EMBEDDED / "clip")


def test_rank_without_samples_or_models(tmp_path, samples):
    with pytest.raises(SystemExit, match="`sample_dir` has to hold samples"):
        rank.main(["--sample_dir", str(tmp_path)])
    with pytest.raises(SystemExit, match="`clip_model` has to be a repo or folder"):
        rank.main(["--sample_dir", str(samples), "--clip_model", str(tmp_path)])


# -------------------- Evaluate and compare --------------------


def test_evaluate_gives_means_and_intervals(samples, capsys):
    evaluate.main(["--sample_dir", str(samples)])
    rows = read(samples / "evaluation.json")
    assert [row["num_samples"] for row in rows] == [4, 2, 6]
    for name in ("clip", "clap", "clap_griffin_lim"):
        values = [read(folder / "scores.json")["scores"][name] for folder in (samples / "castle").iterdir()]
        assert rows[0][name] == pytest.approx(np.mean(values))
        assert rows[0][f"{name}_interval"] == pytest.approx(1.96 * np.std(values, ddof=1) / 2)
    with open(samples / "evaluation.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["clip"]) for row in table] == pytest.approx([row["clip"] for row in rows])
    assert re.search(rf"all +all +6 +{rows[2]['clip']:.3f} ± +{rows[2]['clip_interval']:.3f}", capsys.readouterr().out)


def test_trackers_get_pictures_sounds_and_scores(samples):
    evaluate.main(["--sample_dir", str(samples), "--report_to", "tensorboard"])
    (log,) = samples.glob("images-that-sound/events*")
    events = EventAccumulator(str(log), size_guidance={"images": 0, "audio": 0, "scalars": 0})
    events.Reload()
    assert len(events.Images("image")) == len(events.Audio("audio")) == len(events.Scalars("clip")) == 6
    first = read(samples / "castle" / "seed-000000" / "scores.json")["scores"]["clip"]
    assert events.Scalars("clip")[0].value == pytest.approx(first)


def test_compare_makes_each_method_once(tmp_path, capsys):
    arguments = ["--pairs", "castle-bell", "--num_samples", "1", "--num_sds_iterations", "2", "--width", "256"]
    compare.main([*arguments, "--methods", "audio", "sds", "--output_dir", str(tmp_path)])
    rows = read(tmp_path / "comparison.json")
    assert [(row["method"], row["num_samples"]) for row in rows] == [("audio", 1), ("sds", 1)]
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/*/image.png")}
    assert len(times) == 2
    printed = capsys.readouterr().err
    assert "2 samples: pairs of prompts 1, seeds of each 1, methods 2 (audio, sds)." in printed
    assert "Each of the 1 by sds takes 2 iterations." in printed
    assert "already" not in printed
    compare.main([*arguments, "--methods", "audio", "sds", "--output_dir", str(tmp_path)])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/*/image.png")} == times
    assert "2 of 2 samples were there already." in capsys.readouterr().err
    for other in (["--dtype", "bfloat16"], ["--num_inference_steps", "3"]):
        with pytest.raises(SystemExit, match="begun with other settings"):
            compare.main([*arguments, *other, "--methods", "ours", "--output_dir", str(tmp_path)])
    with pytest.raises(SystemExit, match="`pairs` has to be all, matched, or among"):
        compare.main(["--pairs", "castle-drum", "--output_dir", str(tmp_path)])


def test_compare_takes_any_pair_of_models(
    tmp_path, capsys, stable_diffusion_folder, auffusion_folder, fixtures_folder
):
    models = ["--model", str(stable_diffusion_folder), "--audio_model", str(auffusion_folder)]
    models += ["--sds_model", str(fixtures_folder / "models" / "deepfloyd-if-stage-1")]
    judges = ["--clip_model", "embedded", "--clap_model", "embedded"]
    prompts = ["--prompt", "a castle", "--audio_prompt", "bell ringing", "a dog barking"]
    quick = ["--width", "256", "--num_inference_steps", "1", "--num_sds_iterations", "1", "--device", "cpu"]
    arguments = [*models, *judges, *prompts, *quick, "--num_samples", "1", "--output_dir", str(tmp_path)]
    compare.main([*arguments, "--methods", "image", "ours"])
    assert "4 samples: pairs of prompts 2" in capsys.readouterr().err
    compare.main([*arguments, "--methods", "sds", "--pairs", "picture-0-sound-1"])
    # A side alone does not hear the sound, and so has other seeds for each.
    assert [path.name for path in sorted(tmp_path.glob("image/*/*"))] == ["seed-000000", "seed-001000"]
    assert [path.name for path in sorted(tmp_path.glob("ours/*/*"))] == ["seed-000000"] * 2
    assert read(tmp_path / "sds/picture-0-sound-1/seed-000000/settings.json")["model"] == models[-1]
    rows = {row["method"]: row for row in read(tmp_path / "comparison.json")}
    assert {method: row["num_samples"] for method, row in rows.items()} == {"image": 2, "sds": 1, "ours": 2}
    clip = CLIPScore.from_pretrained(EMBEDDED, subfolder="clip", dtype=torch.float32)
    features = {method: features_of(clip, tmp_path / method) for method in ("image", "ours")}
    covariances = [np.cov(each, rowvar=False) for each in features.values()]
    shift = features["image"].mean(axis=0) - features["ours"].mean(axis=0)
    mixed = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    distance = shift @ shift + np.trace(covariances[0] + covariances[1] - 2 * mixed)
    assert rows["ours"]["fid"] == pytest.approx(distance, rel=1e-3)
    assert rows["image"]["fid"] is rows["ours"]["fad"] is None, "no distance to itself, and no samples of audio alone"


def features_of(clip, folder):
    pictures = [np.asarray(PIL.Image.open(path), np.float64) / 255 for path in sorted(folder.glob("*/*/image.png"))]
    canvases = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return clip.embed_canvases(canvases).flatten(0, 1).double().numpy()


def test_compare_says_what_it_lacks_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    published = ["--clip_model", str(EMBEDDED / "clip")]
    with pytest.raises(SystemExit, match=r'FID and FAD need `pip install "images-that-sound\[compare\]"`'):
        compare.main([*published, "--output_dir", str(tmp_path / "comparison")])
    assert not (tmp_path / "comparison").exists()
