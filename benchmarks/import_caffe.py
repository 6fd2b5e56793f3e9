"""ResNet-50 from prototxt and caffemodel to ONNX: time against reading and writing its bytes, and peak memory.

The caffemodel is written first, with random weights. Times are the smallest of `--repeat` runs, imports of modules not
counted; memory is what a fresh process needs beyond what it holds before it starts.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from wootz.frontend.caffe.importer import import_caffe, import_network
from wootz.frontend.caffe.network import Layer, NetState, read_network
from wootz.frontend.caffe.prototxt import read_prototxt
from wootz.frontend.caffe.weights import Expected
from wootz.passes.ir.files import save

NETWORK = Path(__file__).parents[1] / "examples" / "imagenet" / "resnet50.prototxt"
MEGABYTE = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", type=Path, default=NETWORK)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights, model = Path(folder, "net.caffemodel"), Path(folder, "net.onnx")
        write_caffemodel(options.network, weights)
        size = weights.stat().st_size

        def copy() -> None:
            content = weights.read_bytes()
            Path(folder, "copy").write_bytes(content)

        copying = shortest(copy, options.repeat)
        importing = shortest(lambda: convert(options.network, weights, model), options.repeat)
        memory = peak_memory(options.network, weights, model)
    result = {
        "weights_mb": size / MEGABYTE,
        "copy_s": copying,
        "import_s": importing,
        "time_ratio": importing / copying,
        "peak_memory_mb": memory / MEGABYTE,
        "memory_ratio": memory / size,
    }
    for name, value in result.items():
        print(f"{name:16} {value:10.3f}")
    if options.json:
        print(json.dumps(result))


def convert(network: Path, weights: Path, model: Path) -> None:
    save(import_caffe(network, weights).model, model)


def shortest(action: Callable[[], None], repeat: int) -> float:
    """Seconds that the fastest of `repeat` runs took."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def peak_memory(network: Path, weights: Path, model: Path) -> int:
    """Bytes that a process needs for the import beyond those it held before."""
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[int] = context.Queue()
    process = context.Process(target=_measure, args=(network, weights, model, queue))
    process.start()
    memory = queue.get()
    process.join()
    return memory


def _measure(network: Path, weights: Path, model: Path, queue: multiprocessing.Queue[int]) -> None:
    before = _status("VmRSS")
    convert(network, weights, model)
    queue.put(_status("VmHWM") - before)


def _status(field: str) -> int:
    """Bytes, from Linux's account of this process (the peak of `getrusage` would include the parent's)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


class _Recorder:
    """Random weights, which are kept in the order of the layers."""

    initialised: Sequence[str] = ()

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.blobs: dict[str, list[np.ndarray]] = {}

    def stored_sizes(self, layer: Layer) -> list[int]:
        return []

    def values(self, layer: Layer, expected: Sequence[Expected]) -> list[np.ndarray]:
        self.blobs[layer.name] = [self.random.random(e.shape, np.float32) for e in expected]
        return self.blobs[layer.name]


def write_caffemodel(network: Path, weights: Path) -> None:
    """A caffemodel for `network`, as Caffe writes it."""
    recorder = _Recorder()
    import_network(read_network(read_prototxt(network)), recorder, NetState(), {})
    with weights.open("wb") as file:
        for name, blobs in recorder.blobs.items():
            content = _field(1, name.encode()) + b"".join(_field(7, _blob(blob)) for blob in blobs)
            file.write(_field(100, content))


def _blob(values: np.ndarray) -> bytes:
    shape = b"".join(_varint(d) for d in values.shape)
    return _field(7, _field(1, shape)) + _field(5, values.tobytes())


def _field(tag: int, content: bytes) -> bytes:
    return _varint(tag << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    content = bytearray()
    while number > 0x7F:
        content.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*content, number])


if __name__ == "__main__":
    main()
