"""What photographs cost that are decoded once: the first and the second opening, and memory while batches are read.

    python benchmarks/data_cache.py --images 100000 --json

The photographs are JPEG files of --width times --height, synthetic, of which --different have contents of their own and
the others are hard links to them; a network of 224x224 reads them as --resize crop has it. Each opening is a process of
its own, which then reads training batches and validation batches, --batches of each at most.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from wootz.passes.plan.transform import InputTransform
from wootz.runtime.batches import ordered_batches, training_batches
from wootz.runtime.data.loading import load_dataset
from wootz.runtime.data.resizing import resized_transforms

SHAPE = (3, 224, 224)
CLASSES = 100
BATCH = 32


def write_photographs(folder: Path, images: int, different: int, width: int, height: int) -> int:
    """Class folders with smooth random photographs; gives the bytes of all files."""
    generator = np.random.default_rng(0)
    size = 0
    for number in range(images):
        file = folder / f"class {number % CLASSES:03}" / f"{number:07}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        if number < different:
            coarse = Image.fromarray(generator.integers(0, 256, (40, 50, 3), np.uint8))
            fine = generator.normal(0, 8, (height, width, 3))
            smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
            Image.fromarray(np.clip(smooth + fine, 0, 255).astype(np.uint8)).save(file, quality=90)
        else:
            first = number % different
            os.link(folder / f"class {first % CLASSES:03}" / f"{first:07}.jpg", file)
        size += file.stat().st_size
    return size


def peak_memory(who: int) -> int:
    """Bytes that were resident at most, pages of files included."""
    return resource.getrusage(who).ru_maxrss * 1024


def open_and_read(folder: str, cache: str, batches: int) -> None:
    """Prints what one process needs for it."""
    before = peak_memory(resource.RUSAGE_SELF)
    begin = time.perf_counter()
    dataset = load_dataset(folder, SHAPE, resize="crop", cache=cache)
    key = dataset.digest
    opened = time.perf_counter() - begin
    assert dataset.resizing is not None
    plain = InputTransform(channel_order="RGB")
    train, test = resized_transforms((plain, plain), dataset.resizing, SHAPE)
    begin = time.perf_counter()
    count = min(batches, len(dataset.train) // BATCH)
    read = sum(len(b.data) for b in training_batches(dataset.train, train, BATCH, count, seed=0))
    read += sum(len(b.data) for b in islice(ordered_batches(dataset.validation, test, BATCH), batches))
    print(
        json.dumps(
            {
                "open_seconds": round(opened, 2),
                "images_read_a_second": round(read / (time.perf_counter() - begin)),
                "memory_before": before,
                "peak_memory": peak_memory(resource.RUSAGE_SELF),
                "peak_memory_of_a_decoding_process": peak_memory(resource.RUSAGE_CHILDREN),
                "digest": key,
            }
        )
    )


def measured(folder: Path, cache: Path, batches: int) -> dict[str, object]:
    command = [sys.executable, __file__, "--open", str(folder), "--cache", str(cache), "--batches", str(batches)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--different", type=int, default=1_000)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--batches", type=int, default=500)
    parser.add_argument("--folder", type=Path, help="for photographs and cache (default: a temporary one)")
    parser.add_argument("--open", help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.open:
        open_and_read(options.open, options.cache, options.batches)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder, cache = Path(name, "photographs"), Path(name, "cache")
        different = min(options.different, options.images)
        size = write_photographs(folder, options.images, different, options.width, options.height)
        print(f"{options.images:,} photographs, {size / 1e9:.2f} GB, load average {os.getloadavg()[0]:.1f}", flush=True)
        result: dict[str, object] = {"images": options.images, "bytes": size, "cores": os.cpu_count()}
        for run in ("first", "second"):
            result[run] = measured(folder, cache, options.batches)
            print(f"{run} run: {result[run]}, load average {os.getloadavg()[0]:.1f}", flush=True)
        result["cache_bytes"] = sum(f.stat().st_size for f in cache.rglob("*") if f.is_file())
    print(json.dumps(result) if options.json else result)


if __name__ == "__main__":
    main()
