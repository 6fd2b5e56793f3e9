"""What TensorBoard is given, read back from its files."""

import struct
import sys

import pytest

from wootz.passes.errors import WootzError
from wootz.runtime.reporting.scalars import write_scalars


def records(file):
    """The framed records of a TensorBoard file: length, checksum, content, checksum."""
    content, position = file.read_bytes(), 0
    while position < len(content):
        (length,) = struct.unpack_from("<Q", content, position)
        yield content[position + 12 : position + 12 + length]
        position += length + 16


def scalars(folder):
    """{subfolder: {tag: [(step, value)]}} of all files below."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = {}
    for file in sorted(folder.rglob("events.out.tfevents.*")):
        for record in records(file):
            event = event_pb2.Event.FromString(record)
            for value in event.summary.value:
                of_tag = found.setdefault(file.parent.name, {}).setdefault(value.tag, [])
                of_tag.append((event.step, pytest.approx(value.simple_value)))
    return found


def test_a_run_that_goes_on(whole_run, write_events, tmp_path):
    run = write_events(tmp_path, [event for event in whole_run if event.elapsed <= 15.5])
    assert write_scalars(run, tmp_path / "board") == 3
    assert scalars(tmp_path / "board") == {
        "teacher": {"quality": [(20, 0.6)], "loss": [(20, 0.7)]},
        "network-0": {"quality": [(50, 0.5)], "loss": [(50, 0.5)]},
        "network-1": {"quality": [(50, 0.55)], "loss": [(50, 0.5)]},
    }


def test_a_finished_run_has_its_whole_curves_and_is_written_once(whole_run, write_events, run_result, tmp_path):
    result = run_result()
    result.save(write_events(tmp_path, whole_run))
    for _ in range(2):
        write_scalars(tmp_path, tmp_path / "board")
    found = scalars(tmp_path / "board")
    assert found["teacher"]["quality"] == list(result.full.curve)
    for folder, exploration in (("network", result.block_trained), ("default", result.baseline)):
        for network in exploration.trained:
            assert found[f"{folder}-{network.index}"]["quality"] == list(network.curve)
    assert found["network-0"]["loss"] == [(50, 0.5)]


def test_without_the_package_or_a_run(whole_run, write_events, tmp_path, monkeypatch):
    with pytest.raises(WootzError, match=r"no events\.jsonl in this folder"):
        write_scalars(tmp_path, tmp_path / "board")
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(WootzError, match=r"install wootz\[tensorboard\]"):
        write_scalars(write_events(tmp_path, whole_run), tmp_path / "board")
