"""WeightWatcher on a directory with a model.safetensors: a script for the Python that has it."""

from __future__ import annotations

import sys

import weightwatcher

watcher = weightwatcher.WeightWatcher(model=sys.argv[1], log_level="ERROR")
print(len(watcher.analyze()), "layers")
