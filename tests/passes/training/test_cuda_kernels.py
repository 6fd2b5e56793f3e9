"""Every node of a training graph for CUDA has a kernel there; what the formulations for CUDA look like.

The kernels are facts from ONNX Runtime's docs/OperatorKernels.md (its main branch of 2026, before 1.32), the rows of
opset 18. Nothing was removed since 1.20; added were HardSwish (1.23, a function before) and what opset 18 doesn't see.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from wootz.passes.ir.model import Graph, Node
from wootz.passes.ir.shapes import annotate_shapes
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.solver import Solver, SolverType
from wootz.passes.training.attach_loss import Loss
from wootz.passes.training.build_gradients import BuildGradients
from wootz.passes.training.distill import Distill
from wootz.passes.training.legalize import Legalize
from wootz.passes.training.mixed_precision import MixedPrecision
from wootz.passes.training.training_graph import build_training_graph
from wootz.passes.training.training_mode import TrainingMode

FLOATS = {"float16", "float32", "float64"}
NUMBERS = FLOATS | {"int32", "int64"}
BOOLEAN = {"bool"}
ANYTHING = NUMBERS | {"bool", "int8", "uint8", "int16", "uint16", "uint32", "uint64"}

KERNELS: dict[str, set[str]] = {
    **dict.fromkeys(("Add", "Div", "Max", "Min", "Mod", "Mul", "Pow", "Sub"), NUMBERS),
    **dict.fromkeys(("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "ReduceSum", "Tile", "TopK"), NUMBERS),
    **dict.fromkeys(("Abs", "Neg", "Sign"), NUMBERS | {"int8", "int16"}),
    **dict.fromkeys(("Ceil", "Cos", "Erf", "Exp", "Floor", "Log", "Reciprocal", "Round", "Sin", "Sqrt"), FLOATS),
    **dict.fromkeys(("Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Selu", "Sigmoid"), FLOATS),
    **dict.fromkeys(("Dropout", "Softplus", "Softsign", "Sum", "Tanh", "ThresholdedRelu"), FLOATS),
    **dict.fromkeys(("BatchNormalization", "Conv", "ConvTranspose", "Einsum", "Gemm", "LRN", "MatMul"), FLOATS),
    **dict.fromkeys(("InstanceNormalization", "LayerNormalization", "LogSoftmax", "Softmax"), FLOATS),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "GlobalMaxPool"), FLOATS),
    **dict.fromkeys(("ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"), FLOATS),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceMean", "ReduceProd"), FLOATS | {"int32"}),
    **dict.fromkeys(("ReduceMax", "ReduceMin"), NUMBERS),
    **dict.fromkeys(("ArgMax", "ArgMin", "DepthToSpace", "SpaceToDepth"), FLOATS),
    **dict.fromkeys(("And", "Not", "Or", "Xor"), BOOLEAN),
    **dict.fromkeys(("Cast", "Concat", "ConstantOfShape", "Expand", "Flatten", "Gather", "GatherElements"), ANYTHING),
    **dict.fromkeys(("Identity", "Reshape", "ScatterElements", "ScatterND", "Shape", "Size", "Slice"), ANYTHING),
    **dict.fromkeys(("Split", "Squeeze", "Transpose", "Unsqueeze"), ANYTHING),
    "Clip": FLOATS | {"int64", "int8", "uint8", "uint64"},
    "CumSum": NUMBERS,
    "Equal": NUMBERS | {"bool"},
    "GatherND": FLOATS | {"bool", "int64"},
    "IsInf": {"float32", "float64"},
    "IsNaN": FLOATS,
    "MaxPool": FLOATS | {"int8", "uint8"},
    "OneHot": {"float16", "float32", "int64"},
    "Pad": FLOATS | {"bool"},
    "Range": {"float32", "float64", "int16", "int32", "int64"},
    "Resize": FLOATS | {"int32", "uint8"},
    "Trilu": ANYTHING,
    "Where": NUMBERS | {"uint8"},
}
"""Operator -> element types of the data that it reads; of OneHot what it gives."""

DEFINED_BY_OTHERS = {"CastLike": "Cast", "GroupNormalization": "InstanceNormalization", "Mish": "Softplus"}
"""Operators without a kernel in any provider: ONNX Runtime puts their definition in their place. What the CPU provider
has a kernel for and this one has not (Celu, Mean, MeanVarianceNormalization, SoftmaxCrossEntropyLoss) runs there."""

DATA_OPERAND = {"Where": 1}
SAME_TYPE = {"BatchNormalization": 5}
"""Operators whose kernels want this many first operands of one type, which the standard does not."""


def without_kernel(graph: Graph) -> list[str]:
    """The nodes that would run on the CPU, as `operator type name`."""
    return [f"{node.op} {_element_type(node)} {node.name}" for node in graph.nodes if not _has_kernel(node)]


def _has_kernel(node: Node) -> bool:
    if node.domain or node.attrs.get("training_mode", 0):
        return False
    operands = node.inputs[: SAME_TYPE.get(node.op, 1)]
    same = len({np.dtype(t.dtype) for t in operands}) <= 1
    return same and _element_type(node) in KERNELS.get(DEFINED_BY_OTHERS.get(node.op, node.op), set())


def _element_type(node: Node) -> str:
    tensor = node.outputs[0] if node.op == "OneHot" else node.inputs[DATA_OPERAND.get(node.op, 0)]
    return str(np.dtype(tensor.dtype))


def annotated(model) -> Graph:
    annotate_shapes(model.graph)
    return model.graph


def load_sibling(name: str):
    specification = importlib.util.spec_from_file_location(f"cuda_kernels_{name}", Path(__file__).with_name(name))
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


RULES = load_sibling("test_gradient_rules.py")

EVERYTHING = {"momentum": 0.9, "clip_gradients": 1.0, "iter_size": 2, "weight_decay": 1e-4}


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "googlenet", "densenet121"])
def test_training_graphs_of_networks_stay_on_the_device(name, precision, exported):
    solver = Solver(type=SolverType.ADAM, **EVERYTHING)
    model = exported(f"{name}.torchscript")
    assert not without_kernel(annotated(build_training_graph(model, solver, target="onnx-cuda", precision=precision)))


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("type_", SolverType, ids=str)
def test_all_solvers_stay_on_the_device(type_, precision, make_model):
    text = "g (float[N,4] x) => (y) <float[4,3] w, float[3] b> { h = MatMul(x, w) y = Add(h, b) }"
    momentum = 0.0 if type_ in (SolverType.ADAGRAD, SolverType.RMSPROP) else 0.9
    solver = Solver(type=type_, **EVERYTHING | {"momentum": momentum})
    model = make_model(text, w=(4, 3), b=(3,))
    assert not without_kernel(annotated(build_training_graph(model, solver, target="onnx-cuda", precision=precision)))


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("loss", [*get_args(Loss), "ignore-label", "distill"])
def test_all_losses_stay_on_the_device(loss, precision, make_model):
    text = "g (float[N,4] x) => (y) <float[4,3] w, float[3] b> { h = MatMul(x, w) y = Add(h, b) }"
    model, teacher = (make_model(text, seed, w=(4, 3), b=(3,)) for seed in (0, 1))
    options = {
        "ignore-label": {"ignore_label": 255},
        "distill": {"distill": Distill(network=teacher, share=0.5, scores=True)},
    }.get(loss, {"loss": loss})
    graph = build_training_graph(model, Solver(), **options, target="onnx-cuda", precision=precision)
    assert not without_kernel(annotated(graph))


@pytest.mark.parametrize("in_half", [False, True], ids=["float32", "float16"])
@pytest.mark.parametrize("case", RULES.CASES, ids=str)
def test_gradients_of_all_operators_stay_on_the_device(case, in_half, make_model, with_projected_loss):
    weights = {"p": case.shape, **case.weights}
    declared = ", ".join(RULES.declaration(n, g) for n, g in weights.items())
    shape = ",".join(map(str, case.shape))
    text = f"g (float[{shape}] x) => (y) <{declared}> {{ a = Add(x, p) {case.body} }}"
    model = with_projected_loss(make_model(text, **weights))
    if case.training:
        model = TrainingMode().apply(model).model
    if in_half:
        model = MixedPrecision().apply(model).model
    legal = Legalize(target="onnx-cuda").apply(BuildGradients().apply(model).model).model
    verify(legal)
    assert not without_kernel(annotated(legal))


def test_the_check_finds_what_has_no_kernel(make_model):
    text = """g (float16[2,3] x) => (y) <float[3] v> {
      a = Celu(x)
      y = BatchNormalization(a, v, v, v, v)
    }"""
    found = without_kernel(annotated(make_model(text, v=(3,))))
    assert [f.split()[:2] for f in found] == [["Celu", "float16"], ["BatchNormalization", "float16"]]


def legal_nodes(model):
    return Legalize(target="onnx-cuda").apply(BuildGradients().apply(model).model).model.graph.nodes


def test_the_transposed_convolution_has_equal_pads(make_model):
    text = """g (float[N,3,8,8] x) => (loss) <float[3,3,1,1] u, float[8,3,3,3] w> {
      i = Conv(x, u)
      y = Conv<strides=[2,2], pads=[1,1,1,1]>(i, w)
      loss = ReduceSum<keepdims=0>(y)
    }"""
    (transposed,) = (
        n for n in legal_nodes(make_model(text, u=(3, 3, 1, 1), w=(8, 3, 3, 3))) if n.op == "ConvTranspose"
    )
    assert (transposed.attrs["pads"], transposed.attrs["output_padding"]) == ([1, 1, 1, 1], [1, 1])


@pytest.mark.parametrize(("size", "products"), [(4, "Gemm"), (32, "MatMul")])
def test_the_weight_gradient_folds_the_batch_where_results_outweigh_operands(size, products, make_model):
    text = f"""g (float[N,16,{size},{size}] x) => (loss) <float[32,16,3,3] w> {{
      y = Conv<pads=[1,1,1,1]>(x, w)
      loss = ReduceSum<keepdims=0>(y)
    }}"""
    operators = [n.op for n in legal_nodes(make_model(text, w=(32, 16, 3, 3)))]
    assert operators.count("Gather") == 1
    assert [op for op in operators if op in ("Gemm", "MatMul", "Conv")] == ["Conv", products]


def test_float16_activations_are_not_widened_for_batch_normalization(make_model):
    text = """g (float[N,3,8,8] x) => (loss) <float[8,3,1,1] w, float[8] s, float[8] b, float[8] m, float[8] variance> {
      y = Conv(x, w)
      n = BatchNormalization(y, s, b, m, variance)
      r = Relu(n)
      z = Conv(r, u)
      loss = ReduceSum<keepdims=0>(z)
    }""".replace("float[8] s", "float[4,8,1,1] u, float[8] s")
    weights = {"w": (8, 3, 1, 1), "u": (4, 8, 1, 1)} | dict.fromkeys(("s", "b", "m", "variance"), (8,))
    model = MixedPrecision().apply(TrainingMode().apply(make_model(text, **weights)).model).model
    legal = Legalize(target="onnx-cuda").apply(BuildGradients().apply(model).model).model
    graph = annotated(legal)
    large = [n for n in graph.nodes if n.op == "Cast" and len(n.inputs[0].shape) == 4 and n.inputs[0].shape[0] == "N"]
    assert {n.inputs[0].name for n in large} == {"x", "z"} | {n.inputs[0].name for n in large if "grad/" in n.name}
    assert sum("grad/" in n.name for n in large) == 1
    assert {str(np.dtype(n.inputs[0].dtype)) for n in graph.nodes if n.op == "LayerNormalization"} == {"float16"}


def test_statistics_far_from_zero_keep_their_digits(make_model, run):
    """Channels with mean 100 and deviation 1: float16 has steps of 1/16 there, by which a rounded mean would be off."""
    text = """g (float[4,2,16,16] x) => (y) <float[2] s, float[2] b, float[2] m, float[2] variance, float[2,2,1,1] w> {
      i = Conv(x, w)
      n = BatchNormalization(i, s, b, m, variance)
      y = ReduceSum<keepdims=0>(n)
    }"""
    ones = dict.fromkeys(("s", "variance"), np.ones(2, np.float32)) | dict.fromkeys(("b", "m"), np.zeros(2, np.float32))
    model = TrainingMode().apply(make_model(text, **ones, w=np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1))).model
    legal = Legalize(target="onnx-cuda").apply(BuildGradients().apply(MixedPrecision().apply(model).model).model).model
    legal.graph.outputs.append(next(n for n in legal.graph.nodes if n.op == "BatchNormalization").outputs[0])
    x = np.random.default_rng(0).normal(100, 1, (4, 2, 16, 16)).astype(np.float16)
    found = run(legal, {"x": x.astype(np.float32)})[legal.graph.outputs[-1].name]
    wide = x.astype(np.float64)
    expected = (wide - wide.mean((0, 2, 3), keepdims=True)) / np.sqrt(wide.var((0, 2, 3), keepdims=True) + 1e-5)
    assert np.abs(found - expected).max() < 1e-2  # the rounded mean alone is off by up to 3e-2
