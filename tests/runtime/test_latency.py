"""Latencies, side by side."""

import numpy as np
import pytest

from wootz.frontend.caffe.importer import import_caffe
from wootz.runtime import latency as module
from wootz.runtime.inputs import zeros
from wootz.runtime.latency import LEAST_ROUNDS, WARM_UP, latencies


def test_networks_take_turns_with_one_image_and_the_first_runs_do_not_count(monkeypatch):
    """The second is twice as fast, on a machine that becomes five times as slow in the middle."""
    ran, now = [], [0.0]

    class Session:
        def __init__(self, model, device):
            self.model = model

        def run(self, data):
            assert data.shape == (1, 3, 8, 9)
            ran.append(self.model)
            warm = ran.count(self.model) > WARM_UP
            slow = 5 if len(ran) > 2 * WARM_UP + 2 * LEAST_ROUNDS / 2 else 1
            now[0] += (0.002 / self.model if warm else 9.0) * slow

    monkeypatch.setattr(module, "InferenceSession", Session)
    monkeypatch.setattr(module, "SECONDS_A_NETWORK", 0.0)
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    first, second = latencies((1, 2), np.zeros((1, 3, 8, 9), np.float32))
    assert first.median_ms == pytest.approx(2 * second.median_ms)
    assert (first.low_ms, first.high_ms) == (pytest.approx(2.0), pytest.approx(10.0))
    measured = ran[2 * WARM_UP :]
    assert measured == [1, 2] * LEAST_ROUNDS


def test_the_latency_of_a_real_network_is_measured(prototxt, tmp_path):
    (tmp_path / "net.prototxt").write_text(prototxt)
    model = import_caffe(tmp_path / "net.prototxt").model
    (found,) = latencies((model,), zeros(model))
    assert 0 < found.low_ms <= found.median_ms <= found.high_ms
