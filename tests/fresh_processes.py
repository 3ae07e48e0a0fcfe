"""Code in fresh processes, without the seconds that each would take to import diffusers."""

import json
import os
import subprocess
import sys
from pathlib import Path


# Forks for each line of its input, answers with the exit code of the child, which runs the code to its natural end.
SERVER = """
import gc, json, os, signal, sys
import torch
from diffusers import DiffusionPipeline
# Or each child would spend seconds on collecting, in the end, what it was born with.
gc.freeze()

for line in sys.stdin:
    child = os.fork()
    if not child:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()

request = json.loads(line)
for stream, file in ((1, "stdout"), (2, "stderr")):
    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
signal.alarm(300)
os.chdir(request["directory"])
sys.argv[1:] = request["arguments"]
exec(request["code"], {"__name__": "__main__"})
"""


class FreshProcesses:
    """
    Runs code as `python -c` would if it began with importing torch and diffusers: each time in a process of its own,
    forked from one that did that and no more. All are offline, unless the environment says otherwise.

    Args:
        folder (`Path`): Empty, for what passes between the processes.
        environment (`dict[str, str]`): Variables that they get besides.
    """

    def __init__(self, folder: Path, environment: dict[str, str] = {}):
        self.folder, self.modules = folder, folder / "modules"
        environment = {
            **os.environ,
            "HF_MODULES_CACHE": str(self.modules),
            "HF_HUB_OFFLINE": "1",
            **environment,
        }
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.server = subprocess.Popen([sys.executable, "-c", SERVER], cwd=folder, env=environment, **streams)

    def __call__(self, code: str, *arguments: str, directory: Path) -> subprocess.CompletedProcess:
        """Works in `directory`, whose folder `modules` is the cache of modules, so that a new one has none."""
        self.modules.unlink(missing_ok=True)
        (directory / "modules").mkdir(parents=True, exist_ok=True)
        self.modules.symlink_to(directory / "modules")
        request = {"code": code, "arguments": arguments, "directory": str(directory)}
        print(json.dumps(request), file=self.server.stdin, flush=True)
        exit_code = int(self.server.stdout.readline())
        outputs = [(self.folder / name).read_text() for name in ("stdout", "stderr")]
        return subprocess.CompletedProcess(code, exit_code, *outputs)

    def close(self) -> None:
        self.server.stdin.close()
        self.server.wait()
