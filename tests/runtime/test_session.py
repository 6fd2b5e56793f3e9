"""What a Device asks of ONNX Runtime, and what sessions hold on it."""

from __future__ import annotations

import numpy as np
import pytest

from wootz.passes.errors import WootzError
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.solver import Solver
from wootz.passes.training.training_graph import build_training_graph
from wootz.runtime import session as session_module
from wootz.runtime.session import (
    Device,
    FileSession,
    InferenceSession,
    MergedSession,
    TensorSession,
    TrainingSession,
    WeightedSession,
    on_device,
    on_host,
)

NETWORK = """<ir_version: 8, opset_import: ["" : 18]>
g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1,2,3,4}> {
  [fc] y = MatMul(x, w)
}"""
CHOICE = """<ir_version: 8, opset_import: ["" : 18]>
g (float[N,2] x) => (float[N,2] y) <bool[1] c = {1}> {
  y = If(c) <then_branch = t () => (float[N,2] a) { a = Neg(x) }, else_branch = e () => (float[N,2] b) { b = Abs(x) }>
}"""
DROPOUT = NETWORK.replace("y = MatMul(x, w)", "h = MatMul(x, w)\n  [drop] y = Dropout(h)")
ONE_THREAD = Device(threads=1)
DATA, LABELS = np.arange(8, dtype=np.float32).reshape(4, 2), np.array([0, 1, 1, 0])


def content_of(model):
    return model.to_proto().SerializeToString()


@pytest.fixture
def with_cuda(monkeypatch):
    """An ONNX Runtime that says it has CUDA."""
    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(session_module.onnxruntime, "get_available_providers", lambda: available)


def test_cuda_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(session_module.onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(WootzError, match=r"no CUDA provider: install wootz\[cuda\], or run on the CPU"):
        Device("cuda").providers()


@pytest.mark.parametrize("start", [InferenceSession, lambda model, device: FileSession(content_of(model), device)])
def test_cuda_that_does_not_start_is_an_error_and_no_slow_run_on_the_cpu(start, monkeypatch, capsys):
    """ONNX Runtime falls back to the CPU, and prints why."""
    monkeypatch.setattr(
        session_module.onnxruntime, "preload_dlls", lambda: print("Failed to load libcublas.so\nmore"), raising=False
    )
    monkeypatch.setattr(Device, "providers", lambda device, **_: ["CPUExecutionProvider"])
    with pytest.raises(WootzError, match=r"could not start CUDA \(Failed to load libcublas.so\): is there"):
        start(parse_text(NETWORK), Device("cuda"))
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("with_cuda")
def test_tf32_is_used_on_request_alone():
    """ONNX Runtime's own default is to use it."""
    for tf32, expected in ((False, "0"), (True, "1")):
        (name, options), cpu = Device("cuda", tf32=tf32).providers()
        assert (name, cpu) == ("CUDAExecutionProvider", "CPUExecutionProvider")
        assert options["use_tf32"] == expected


@pytest.mark.usefixtures("with_cuda")
def test_sessions_run_on_the_gpu_of_the_device():
    assert dict([Device("cuda", index=2).providers()[0]])["CUDAExecutionProvider"]["device_id"] == "2"


@pytest.mark.usefixtures("with_cuda")
def test_half_precision_has_tensor_cores():
    """ONNX Runtime takes them from float16 convolutions where TF32 is off."""
    assert dict([Device("cuda").providers(half=True)[0]])["CUDAExecutionProvider"]["use_tf32"] == "1"


def test_what_onnx_runtime_fails_at_is_one_line(monkeypatch):
    session = InferenceSession(parse_text(NETWORK), ONE_THREAD)

    class Failing:
        def run(self, *_):
            raise session_module.onnxruntime.capi.onnxruntime_pybind11_state.EPFail("cuDNN is not\navailable")

    monkeypatch.setattr(session, "_session", Failing())
    with pytest.raises(WootzError, match=r"^ONNX Runtime: cuDNN is not available$"):
        session.run(DATA)


@pytest.mark.usefixtures("with_cuda")
@pytest.mark.parametrize("attributes", ["pads=[0,1]", "ceil_mode=1, count_include_pad=1"])
def test_averages_that_cuda_computes_wrong_are_refused(attributes, monkeypatch):
    model = parse_text(f"""<ir_version: 8, opset_import: ["" : 18]>
    g (float[1,2,8] x) => (float[1,2,n] y) {{ [pool] y = AveragePool<kernel_shape=[3], {attributes}>(x) }}""")
    monkeypatch.setattr(session_module.onnxruntime, "__version__", "1.30.2")
    with pytest.raises(WootzError, match=r"AveragePool node 'pool': ONNX Runtime 1\.30\.2 computes it wrong on CUDA"):
        InferenceSession(model, Device("cuda"))
    monkeypatch.setattr(session_module.onnxruntime, "__version__", "1.31.0")
    with pytest.raises(WootzError, match="could not start CUDA"):
        InferenceSession(model, Device("cuda"))


@pytest.mark.usefixtures("with_cuda")
def test_cuda_graphs_are_for_training_alone():
    device = Device("cuda", cuda_graphs=True)
    assert "enable_cuda_graph" not in dict([device.providers()[0]])["CUDAExecutionProvider"]
    assert dict([device.providers(capture=True)[0]])["CUDAExecutionProvider"]["enable_cuda_graph"] == "1"


def test_what_changes_results_belongs_into_their_keys():
    assert Device("cpu", threads=3, tf32=True).numerics == Device("cpu").numerics
    assert Device("cuda", cuda_graphs=True).numerics == Device("cuda").numerics
    assert Device("cuda", index=1).numerics == Device("cuda").numerics
    assert len({d.numerics for d in (Device("cpu"), Device("cuda"), Device("cuda", tf32=True))}) == 3


@pytest.mark.parametrize("name", ["runtime_version", "channel_block", "_fuses_products"])
def test_another_build_or_processor_has_other_numerics(monkeypatch, name):
    before = Device("cpu").numerics
    others = {"runtime_version": "?", "channel_block": 3, "_fuses_products": not session_module._fuses_products()}
    monkeypatch.setattr(session_module, name, lambda: others[name])
    assert Device("cpu").numerics != before


def test_a_cuda_graph_would_repeat_random_numbers():
    graph = build_training_graph(parse_text(DROPOUT), Solver())
    with pytest.raises(WootzError, match=r"Dropout node 'drop' draws random numbers.*without --cuda-graphs"):
        TrainingSession(graph, Device("cuda", cuda_graphs=True))


def test_a_fixed_batch_size_refuses_others_and_computes_the_same():
    graph = build_training_graph(parse_text(NETWORK), Solver())
    free, fixed = TrainingSession(graph, ONE_THREAD), TrainingSession(graph, ONE_THREAD, batch_size=4)
    np.testing.assert_allclose(fixed.step(DATA, LABELS, 0.1), free.step(DATA, LABELS, 0.1), rtol=1e-6)
    np.testing.assert_allclose(fixed.weights()["w"], free.weights()["w"], rtol=1e-6)
    free.step(DATA[:3], LABELS[:3], 0.1)
    with pytest.raises(Exception, match="Got: 3 Expected: 4"):
        fixed.step(DATA[:3], LABELS[:3], 0.1)


@pytest.mark.parametrize("loss", ["mse", "distillation"])
def test_targets_stay_real_numbers(loss):
    session = TrainingSession(build_training_graph(parse_text(NETWORK), Solver(), loss=loss), ONE_THREAD)
    first, second = (session.step(DATA, DATA / 10 + shift, 0.0) for shift in (0.0, [0.25, 0.0]))
    assert abs(float(first[0]) - float(second[0])) > 1e-3


def test_a_batch_that_was_given_may_be_written_to():
    session = TrainingSession(build_training_graph(parse_text(NETWORK), Solver()), ONE_THREAD)
    data = DATA.copy()
    first = session.step(data, LABELS, 0.0)
    data[:] = 0
    session.run()
    np.testing.assert_array_equal(session.step(DATA, LABELS, 0.0), first)


def test_validation_reads_the_weights_where_training_keeps_them():
    network = parse_text(NETWORK)
    session = TrainingSession(build_training_graph(network, Solver()), ONE_THREAD)
    evaluator = WeightedSession(network, session.weights(), ONE_THREAD)
    np.testing.assert_array_equal(evaluator.run(DATA), DATA @ [[1, 2], [3, 4]])
    for _ in range(3):
        session.step(DATA, LABELS, 0.1)
        evaluator.set_weights(session.device_weights())
        np.testing.assert_allclose(evaluator.run(DATA), DATA @ session.weights()["w"], rtol=1e-6)
    ragged = evaluator.run(DATA[:3])
    np.testing.assert_allclose(ragged, DATA[:3] @ session.weights()["w"], rtol=1e-6)


@pytest.mark.parametrize(("limit", "sleeps"), [(3, True), (4, False)])
def test_threads_of_a_large_network_sleep_between_its_nodes(monkeypatch, limit, sleeps):
    """The network holds 4 numbers."""
    asked = {}

    class Options(session_module.onnxruntime.SessionOptions):
        def add_session_config_entry(self, key, value):
            asked[key] = value
            super().add_session_config_entry(key, value)

    monkeypatch.setattr(session_module.onnxruntime, "SessionOptions", Options)
    monkeypatch.setattr(session_module, "LARGE_NETWORK", limit)
    InferenceSession(parse_text(NETWORK), ONE_THREAD)
    assert asked == ({"session.intra_op.allow_spinning": "0"} if sleeps else {})


def test_parts_of_a_network_hand_over_several_tensors():
    """The second part reads what the first one computed, and what it read."""
    parts = [
        parse_text(f"""<ir_version: 8, opset_import: ["" : 18]> g ({inputs}) => ({outputs}) {{ {nodes} }}""")
        for inputs, outputs, nodes in (
            ("float[N,2] x", "float[N,2] a, float[N,2] b", "a = Neg(x) b = Add(a, a)"),
            ("float[N,2] b, float[N,2] x", "float[N,2] y", "y = Sub(b, x)"),
        )
    ]
    tensors = {"x": on_device(DATA, ONE_THREAD)}
    for part in parts:
        tensors |= TensorSession(part, ONE_THREAD).run(tensors)
    assert tensors.keys() == {"x", "a", "b", "y"}
    np.testing.assert_array_equal(on_host(tensors["a"]), -DATA)
    np.testing.assert_array_equal(on_host(tensors["y"]), -3 * DATA)


@pytest.mark.parametrize(
    ("others", "room", "sessions"), [((), 1 << 29, 1), ((CHOICE,), 1 << 29, 2), ((), 32, 2), ((), 0, 3)]
)
def test_models_that_run_together_give_what_they_give_alone(others, room, sessions, monkeypatch):
    monkeypatch.setattr(session_module, "LARGEST_MERGED", room)
    opened = []
    monkeypatch.setattr(
        session_module, "InferenceSession", lambda *given: opened.append(given) or InferenceSession(*given)
    )
    models = [parse_text(text) for text in (NETWORK, NETWORK.replace("1,2,3,4", "5,6,7,8"), NETWORK, *others)]
    found = MergedSession(models, ONE_THREAD).outputs(DATA)
    assert len(found) == len(models)
    assert len(opened) == sessions
    for model, outputs in zip(models, found, strict=True):
        np.testing.assert_array_equal(outputs["y"], InferenceSession(model, ONE_THREAD).outputs(DATA)["y"])
