"""An ONNX network of two residual modules for the digits, as exporters leave one, and `wootz run` of it."""

import numpy as np
import onnx

HEADER = '<ir_version: 8, opset_import: ["" : 18]>'
MODULES = """
    h = Conv<pads = [1,1,1,1]>(image, stem)
    a1 = Conv(h, a) a2 = Relu(a1) a3 = Conv<pads = [1,1,1,1]>(a2, b) a4 = Add(a3, h) m1 = Relu(a4)
    b1 = Conv(m1, c) b2 = Relu(b1) b3 = Conv<pads = [1,1,1,1]>(b2, d) b4 = Add(b3, m1) m2 = Relu(b4)
    p = GlobalAveragePool(m2)
"""
WEIGHTS = {
    "stem": (8, 1, 3, 3), "a": (8, 8, 1, 1), "b": (8, 8, 3, 3), "c": (8, 8, 1, 1), "d": (8, 8, 3, 3), "fc": (8, 10),
}  # fmt: skip


def write_network(folder, signature, body, weights=WEIGHTS):
    """A network with He's initial weights, and a subspace of its two modules."""
    elided = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in weights.items())
    proto = onnx.parser.parse_model(f"{HEADER} g {signature} <{elided}> {{ {body} }}")
    generator = np.random.default_rng(0)
    for name, shape in weights.items():
        values = generator.normal(size=shape, scale=np.sqrt(2 / np.prod(shape[1:] or shape[:1])))
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    del proto.graph.value_info[:]
    onnx.save(proto, folder / "net.onnx")
    (folder / "subspace.json").write_text("[[0.5, 0.5], [0.75, 0.5], [0.5, 0.75]]")


def run(wootz, job_files, folder, *options):
    return wootz(
        "run", "net.onnx", "--data", "digits", "--subspace", "subspace.json", "--solver", job_files / "solver.prototxt",
        "--pretrain-solver", job_files / "pretrain.prototxt", "--objective", "max Accuracy", "--threads", 1,
        "--out", "out", *options, cwd=folder,
    )  # fmt: skip
