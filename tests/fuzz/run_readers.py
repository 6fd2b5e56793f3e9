"""What a run writes: its result, its events, what its network takes, and how pixels become its input."""

from __future__ import annotations

import json
from pathlib import Path

from driver import BYTE_MUTATIONS, TEXT_MUTATIONS, Reader

from wootz.runtime.delivery.description import read_description
from wootz.runtime.events import read_events
from wootz.runtime.latency_table.table import read_table
from wootz.runtime.reporting.timeline import timeline
from wootz.runtime.result import read_result
from wootz.runtime.status import status_of
from wootz.tools.pixels import read_pixels

ARCHITECTURE = {"configuration": [0.5, [0.3, 0.7]], "model_size": 10, "flops": 20, "latency_ms": 0.5}
QUALITY = {"name": "Accuracy", "higher_is_better": True, "format": "share"}
RESULT = {
    "schema": 2, "quality": QUALITY,
    "best": {**ARCHITECTURE, "index": 4, "model": "best.onnx", "quality": 0.9, "test_quality": None},
    "full": {**ARCHITECTURE, "state": "failed", "reason": "it diverged", "origin": "fine-tuned", "new_layers": ["fc"]},
    "networks_evaluated": 2, "networks_feasible": 3, "networks_total": 4, "baseline": None,
    "seconds": {"total": 3.5, "plan": 1}, "reuse": {"blocks": 1}, "seed": 0, "network": "n", "data": "d",
    "objective": {"text": "max Accuracy constraint FLOPs < 9", "direction": "max", "metric": "Accuracy",
                  "constraints": [
        {"metric": "FLOPs", "comparison": "<", "scale": 0, "offset": 9, "bound": 9}]},
    "classes": ["cat", "dog"], "modules": ["a", "b"], "modules_source": "marks",
    "networks": [
        {**ARCHITECTURE, "index": 4, "state": "trained", "quality": 0.9, "initial_quality": 0.5, "blocks": [0, None],
         "curve": [[0, 0.5], [10, 0.9]], "kept": 10, "steps": 10, "ended": "bound met", "seconds": 1},
        {**ARCHITECTURE, "index": 1, "state": "failed", "reason": "it diverged", "blocks": [None, None]},
        {**ARCHITECTURE, "index": 0, "state": "not tried"},
        {**ARCHITECTURE, "index": 2, "state": "infeasible", "violates": "FLOPs < 9"},
    ],
    "blocks": [
        {"state": "trained", "symbols": [{"module": "a", "rate": 0.5, "input_rates": [0.5]}], "networks": 2,
         "initial_error": 0.5, "final_error": 1e-3, "steps": 30, "reused": True},
    ],
    "groups": [[0]], "notes": ["a note"],
    "environment": {"wootz": "0", "python": "3", "platform": "", "runtime": "", "executor": "", "workers": 1,
                    "device": "cpu", "precision": "float32", "target": "onnx"},
}  # fmt: skip
TASK = {"kind": "network", "index": 3}
EVENTS = (
    {"event": "run started", "elapsed": 0, "time": 1.8e9, "schema": 2, "wootz": "0", "host": "h", "machine": "0123",
     "pid": 1, "started": 2, "network": "n", "data": "d", "objective": "max Accuracy", "quality": QUALITY,
     "executor": "e", "workers": 2},
    {"event": "planned", "elapsed": 1, "networks_total": 4, "networks_feasible": 3, "blocks": 1, "groups": 1,
     "teacher": True, "baseline": False, "stops_at_first": True},
    {"event": "phase", "elapsed": 1, "phase": "exploration"},
    {"event": "task started", "elapsed": 1, "task": TASK, "title": "network 3", "steps": 10, "display": 5},
    {"event": "progress", "elapsed": 1.5, "task": TASK, "worker": 1, "step": 5, "loss": 0.5, "quality": 0.5},
    {"event": "task ended", "elapsed": 2, "task": TASK, "worker": 1, "outcome": "trained", "seconds": 1, "blocks": 0},
    {"event": "best", "elapsed": 2, "index": 3, "configuration": [0.5], "model_size": 10, "quality": 0.5},
    {"event": "worker lost", "elapsed": 3, "task": TASK, "worker": 1, "reason": "it died", "again": True},
    {"event": "run ended", "elapsed": 3, "outcome": "found"},
)  # fmt: skip


def _read_events(file: Path) -> None:
    events = list(read_events(file))
    status_of(events)
    timeline(events)


RESULTS = [json.dumps(RESULT).encode(), json.dumps(RESULT, indent=1).encode()]
LINES = [b"".join(json.dumps(event).encode() + b"\n" for event in EVENTS)]

PIXELS = (
    b'{"mean": [127.5], "scale": [0.008], "channel_order": "RGB", "why": "a trial", "accuracies": {"raw": 0.1}}',
    b'{"mean": [1, 2, 3], "scale": [1.5, -1, 2e3], "channel_order": "BGR", "distances": {"raw": 0.9}}',
)

DESCRIPTION = json.loads((Path(__file__).parents[1] / "fixtures" / "best.json").read_text())
DESCRIPTIONS = [json.dumps(DESCRIPTION).encode(), json.dumps(DESCRIPTION, indent=1).encode()]

TIMES = {"low_ms": 1.1, "median_ms": 1.5, "high_ms": 2e0, "runs": 20, "outliers": 1}
LATENCIES = {
    "schema": 1,
    "measured_on": {"runtime": "o", "provider": "p", "threads": 1, "batch": 2, "image_shape": [3, 8, 9], "machine": "m",
                    "date": "d"},
    "modules": [
        {"module": "a", "pieces": [{"rate": 0, "macs": 9, "times": TIMES}, {"rate": 0.5, "macs": 4, "times": TIMES}]},
        {"module": "b", "inputs": ["a"], "pieces": [
            {"rate": 0, "input_rates": [0], "macs": 9, "times": TIMES},
            {"rate": 0, "input_rates": [0.5], "macs": 4},
            {"rate": 0.25, "input_rates": [0], "macs": 7, "times": TIMES},
            {"rate": 0.25, "input_rates": [0.5], "macs": 3},
        ]},
    ],
    "outside_inputs": [],
    "networks": [{"configuration": [0, 0], "use": "outside", "times": TIMES},
                 {"configuration": [0.5, 0], "use": "fit", "times": TIMES},
                 {"configuration": [0.5, 0.25], "use": "check", "times": TIMES}],
}  # fmt: skip
TABLES = [json.dumps(LATENCIES).encode(), json.dumps(LATENCIES, indent=1).encode()]


def _read_latencies(file: Path) -> None:
    table = read_table(file)
    table.predict(table.networks[0].configuration)
    assert table.error is None or table.error.worst >= 0
    assert isinstance(table.warnings, tuple)


READERS = (
    Reader("result.json", read_result, "result.json", RESULTS, (*TEXT_MUTATIONS, *BYTE_MUTATIONS)),
    Reader("best.json", read_description, "best.json", DESCRIPTIONS, (*TEXT_MUTATIONS, *BYTE_MUTATIONS)),
    Reader("pixels.json", read_pixels, "pixels.json", PIXELS, (*TEXT_MUTATIONS, *BYTE_MUTATIONS)),
    Reader("latency", _read_latencies, "table.json", TABLES, (*TEXT_MUTATIONS, *BYTE_MUTATIONS)),
    Reader("events.jsonl", _read_events, "events.jsonl", LINES, (*TEXT_MUTATIONS, *BYTE_MUTATIONS)),
)
