"""Run a checkpoint with several numbers of workers: checkpoint, folder, address or nothing, numbers."""

import sys
from pathlib import Path

import rct_ray

checkpoint, folder, address, *numbers = sys.argv[1:]
if address:
    from rct_ray.engine.ray_session import import_ray

    import_ray().init(address=address, log_to_driver=False, logging_level="ERROR")
Path(folder).mkdir()
for number in numbers:
    options = {"engine": "ray" if address else "inprocess", "workers": int(number)}
    rct_ray.run(checkpoint, Path(folder, number), **options)
