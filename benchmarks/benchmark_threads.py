"""
Prints how long `generate` takes for two samples with torch's threads spinning briefly before they sleep, as the
commands let them, and long, as GNU's OpenMP does by itself: in turns, each run in a process and a folder of its own,
alone and beside busy neighbours. The ratio is of the medians.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time


POLICIES = {"brief": {"GOMP_SPINCOUNT": "1000"}, "long": {"GOMP_SPINCOUNT": "300000"}}
COMMAND = [sys.executable, "-m", "images_that_sound.scripts.generate", "--example", "bell", "--num_samples", "2"]


def parse_args(input_args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--neighbours", type=int, nargs="+", default=[0, 2], help="Numbers of busy processes.")
    parser.add_argument("--repetitions", type=int, default=3)
    return parser.parse_args(input_args)


def seconds_of(policy: str) -> float:
    """Of one run, its imports included."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        command = [*COMMAND, "--device", "cpu", "--output_dir", folder]
        subprocess.run(command, env={**others, **POLICIES[policy]}, check=True, capture_output=True)
    return time.perf_counter() - start


def benchmark(num_neighbours: int, repetitions: int) -> str:
    neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(num_neighbours)]
    try:
        rounds = [{policy: seconds_of(policy) for policy in POLICIES} for _ in range(repetitions)]
    finally:
        for process in neighbours:
            process.kill()
            process.wait()
    times = {policy: [each[policy] for each in rounds] for policy in POLICIES}
    ratio = statistics.median(times["long"]) / statistics.median(times["brief"])
    cells = "".join(f"   {policy} " + " ".join(f"{each:.1f}" for each in times[policy]) for policy in POLICIES)
    return f"{num_neighbours} busy neighbours:{cells} s   ratio {ratio:.2f}"


def main(input_args: list[str] | None = None) -> None:
    args = parse_args(input_args)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for number in args.neighbours:
        print(benchmark(number, args.repetitions), flush=True)


if __name__ == "__main__":
    main()
