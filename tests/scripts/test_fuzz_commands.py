"""A few random command lines; `tests/fuzz_commands.py` runs as many as one likes."""

from fuzz_commands import fuzz


def test_random_commands_succeed_or_say_in_one_line_what_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    outcomes = fuzz(30, 1, tmp_path)
    assert not [(text, lines) for text, lines in outcomes.items() if text.startswith("!")]
    assert outcomes[""], "some succeed"
