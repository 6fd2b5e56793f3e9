"""The training graph is what the named pipelines make, observed like any other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.base import Pass
from wootz.passes.errors import PassError, VerificationError
from wootz.passes.ir.model import Model, Variable
from wootz.passes.ir.text import parse_text
from wootz.passes.pipeline import Observers, Step, parse_pipeline, print_pipeline, run_pipeline
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.plan.solver import Solver, SolverType
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.registry import PIPELINES
from wootz.passes.training.joint_graph import joint_training_graph, joint_training_pipeline
from wootz.passes.training.training_graph import build_training_graph, training_pipeline

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "net.prototxt"
SOLVER = Solver(type=SolverType.ADAM, momentum=0.5, weight_decay=1e-4, clip_gradients=2.0, iter_size=2, random_seed=7)
BLOCKS = (TuningBlock((Symbol(0, 0.5), Symbol(1, 1 / 3))), TuningBlock((Symbol(2, 0.25),)))
NETWORK = """<ir_version: 8, opset_import: ["" : 18]>
g (float[N,2] x, int64[N] label) => (float[N,2] y) <float[2,2] w = {1,2,3,4}, float[2] b = {1,2}> {
  [fc] h = MatMul(x, w)
  [add] y = Add(h, b)
}"""
OPTIONS = {"loss": "softmax-cross-entropy", "labels": "label", "frozen": ("b",)}


@pytest.fixture(scope="module")
def pruner() -> BlockPruner:
    return BlockPruner.of(import_caffe(DIGITS).model, "l2")


def same(a: Model, b: Model) -> bool:
    first, second = (m.to_proto().SerializeToString(deterministic=True) for m in (a, b))
    return first == second


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_text_of_the_pipeline_makes_the_same_graph(precision: str) -> None:
    passes = training_pipeline(SOLVER, **OPTIONS, target="onnx-cuda", precision=precision)
    text = print_pipeline(passes)
    assert parse_pipeline(text) == passes
    assert "type=Adam" in text
    model = parse_text(NETWORK)
    built = build_training_graph(model, SOLVER, **OPTIONS, target="onnx-cuda", precision=precision)
    assert same(built, run_pipeline(model, parse_pipeline(text)).model)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_text_for_blocks_makes_the_same_graph(precision: str, pruner: BlockPruner) -> None:
    text = print_pipeline(joint_training_pipeline(pruner, BLOCKS, SOLVER, precision=precision))
    assert "criterion=l2" in text
    built = joint_training_graph(pruner, BLOCKS, SOLVER, precision=precision)
    assert same(built, run_pipeline(pruner.model, parse_pipeline(text)).model)


def names(passes: Sequence[Pass]) -> list[str]:
    return [p.name for p in passes]


def test_the_order_is_that_of_the_named_pipelines(pruner: BlockPruner) -> None:
    for suffix, precision in (("", "float32"), ("-float16", "float16")):
        whole = names(parse_pipeline("training" + suffix))
        assert names(training_pipeline(SOLVER, precision=precision)) == whole
        with_losses = [name for name in whole if name not in ("trainable-part", "attach-loss")]
        assert names(training_pipeline(SOLVER, loss=None, precision=precision)) == with_losses
        joint = joint_training_pipeline(pruner, BLOCKS, SOLVER, precision=precision)
        assert names(joint) == names(parse_pipeline("block-training" + suffix))


def test_float16_scales_its_losses_as_the_pipeline_says() -> None:
    (optimizer,) = (p for p in training_pipeline(SOLVER, precision="float16") if p.name == "apply-optimizer")
    assert getattr(optimizer, "loss_scale") == 65536.0  # noqa: B009
    assert "loss-scale=65536.0" in PIPELINES["training-float16"]


def test_observers_see_each_pass_of_a_training_graph(pruner: BlockPruner) -> None:
    seen: list[str] = []
    observers = Observers(after=[lambda step, before: seen.append(step.pass_.name)])
    build_training_graph(parse_text(NETWORK), SOLVER, **OPTIONS, observers=observers)
    assert seen == names(parse_pipeline("training"))
    seen.clear()
    joint_training_graph(pruner, BLOCKS, SOLVER, observers=observers)
    assert seen == names(parse_pipeline("block-training"))


def test_each_pass_is_verified_where_that_is_asked_for() -> None:
    def damage(step: Step, before: Model) -> None:
        if step.pass_.name == "attach-loss":
            step.result.model.graph.inputs.append(Variable("w", np.float32, [2, 2]))

    broken = Observers(after=[damage])
    with pytest.raises(VerificationError, match="after build-gradients"):
        build_training_graph(parse_text(NETWORK), SOLVER, **OPTIONS, verify_each=True, observers=broken)


def test_a_refusal_names_the_passes_before() -> None:
    with pytest.raises(
        PassError, match=r"^build-gradients: .*nothing to train.* \(after trainable-part, training-mode, attach-loss\)$"
    ):
        build_training_graph(parse_text(NETWORK), SOLVER, labels="label", frozen=("w", "b"))
