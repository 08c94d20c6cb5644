#!/usr/bin/env python
"""Memory and time of training samples from rasters of growing size, each in a process of its own.

python tools/benchmark_rasters.py                          # 2,000, 10,000 and 20,000 pixels a side
python tools/benchmark_rasters.py --sizes 2000 4000 --labels polygons
python tools/benchmark_rasters.py --folder datasets/raster_example   # keeps the largest

The rasters are those of datasets/prepare_raster_example.py. Samples are drawn as in
training: classes counted, windows balanced by class, read and augmented.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPT = Path(__file__).resolve()
PREPARE = SCRIPT.parents[1] / "datasets" / "prepare_raster_example.py"


def draw(description: Path, samples: int) -> None:
    """Draw training samples and print seconds and peaks in MiB: at the start and at the end."""
    import seg_plugins
    from seg_plugins.data import apply_custom_dataset, build_mapper
    from seg_plugins.engine.train_loader import build_train_loader

    cfg = seg_plugins.load_config(
        "quickstart/unet_shapes.yaml",
        ["DATASETS.CUSTOM", str(description), "DATALOADER.NUM_WORKERS", "0"],
    )
    os.environ["XDG_CACHE_HOME"] = str(description.parent / "cache")  # counts classes anew
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begin = time.perf_counter()
    apply_custom_dataset(cfg)
    loader = build_train_loader(cfg, build_mapper(cfg, True))
    counted = time.perf_counter() - begin
    begin, count = time.perf_counter(), 0
    for batch in loader:
        count += len(batch)
        if count >= samples:
            break
    each = 1000 * (time.perf_counter() - begin) / count
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{counted:.1f} {each:.1f} {before:.0f} {peak:.0f}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 10000, 20000])
    parser.add_argument("--labels", choices=("raster", "polygons"), default="raster")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="of the files, which stay")
    parser.add_argument("--single", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.single:
        draw(args.single, args.samples)
        return 0
    print("side    image MiB   s to count   ms/sample   MiB before   peak MiB   against the first")
    first = 0.0
    for side in args.sizes:
        with tempfile.TemporaryDirectory() as temporary:
            folder = args.folder or Path(temporary)
            # Made in another process: the peak of this one is inherited by its children.
            command = [sys.executable, str(PREPARE), str(folder), "--side", str(side)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            command = [sys.executable, str(SCRIPT), "--samples", str(args.samples)]
            command += ["--single", str(folder / f"{args.labels}.yaml")]
            run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        counted, each, before, peak = (float(number) for number in run.stdout.split()[-4:])
        first = first or peak
        print(
            f"{side:<7} {3 * side * side / 2**20:>9.0f} {counted:>12.1f} {each:>11.1f} "
            f"{before:>12.0f} {peak:>10.0f} {100 * (peak / first - 1):>+17.1f}%",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
