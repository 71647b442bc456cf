"""Python imports this at start in every process of a run under test, Ray's workers too.

`RCT_FAULTS` names a JSON file, read anew at each shard, so that a fault can be made and mended while the run
goes on. The fault strikes in mid-shard: behind the first block that is read. Rules, of which any may be there:

- `log`: a directory that gets a file for every shard that was begun,
- `sleep`: seconds for each shard of a tensor called layer*; `jitter`: the most of a random time for each,
- `hold`: glob of tensors whose shards say so in a file `held.*` beside the JSON, and wait for a file `go`,
- `exit`: glob of tensors whose shards end their process; `times`: how often that befalls, always by default,
- `unreadable`: glob of tensors whose disk fails: the rest of a shard is read with EIO,
- `start`: `exit` ends Ray's workers as they import the engine; with `raise` that fails.
"""

import fnmatch
import json
import math
import os
import random
import sys
import time
import uuid
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from pathlib import Path

_PATIENCE_S = 120


def rules_of_the_moment():
    """What the file says now."""
    try:
        return json.loads(Path(os.environ["RCT_FAULTS"]).read_text())
    except FileNotFoundError:
        return {}


def strike(tensor, row):
    """Do to a shard what the rules of the moment say."""
    path, rules = Path(os.environ["RCT_FAULTS"]), rules_of_the_moment()
    if "log" in rules:
        begun = Path(rules["log"], f"{time.time_ns()}.{os.getpid()}.{uuid.uuid4().hex[:6]}")
        begun.write_text(json.dumps({"tensor": tensor, "row": row, "pid": os.getpid()}))
    if tensor.startswith("layer"):
        time.sleep(rules.get("sleep", 0) + random.random() * rules.get("jitter", 0))
    if fnmatch.fnmatchcase(tensor, rules.get("hold", "")):
        (path.parent / f"held.{os.getpid()}.{tensor}.{row}").touch()
        until = time.monotonic() + _PATIENCE_S
        while not (path.parent / "go").exists() and time.monotonic() < until:
            time.sleep(0.005)
    ended = len(list(path.parent.glob("ended.*")))
    if fnmatch.fnmatchcase(tensor, rules.get("exit", "")) and ended < rules.get("times", math.inf):
        (path.parent / f"ended.{uuid.uuid4().hex}").touch()
        os._exit(9)


class _AsImported(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "rct_ray.engine.shard":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_patch(module):
            start = rules_of_the_moment().get("start") if "default_worker" in sys.argv[0] else None
            if start == "exit":
                os._exit(9)
            if start == "raise":
                raise ModuleNotFoundError("No module named 'rct_ray_there'")
            execute(module)
            _patch(module)

        spec.loader.exec_module = execute_and_patch
        return spec


def _patch(module):
    class StruckReader(module.RowReader):
        def __init__(self, entry):
            super().__init__(entry)
            self.tensor, self.struck = entry.name, False

        def read(self, start, stop, out):
            block = super().read(start, stop, out)
            if not self.struck:
                self.struck = True
                strike(self.tensor, start)
                if fnmatch.fnmatchcase(self.tensor, rules_of_the_moment().get("unreadable", "")):
                    # Where nothing is mapped the kernel itself answers EIO.
                    with Path("/proc/self/mem").open("rb", buffering=0) as nothing:
                        os.dup2(nothing.fileno(), self._fd)
            return block

    module.RowReader = StruckReader


if "RCT_FAULTS" in os.environ:
    sys.meta_path.insert(0, _AsImported())
