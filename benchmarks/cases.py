"""Prunes each ONNX model of a folder, trains it for one step and reads everything back: right, refused, wrong or crash?

    python benchmarks/cases.py DIR [--each-layer 6] [--json]

One line a model, by an oracle of its own, which knows nothing of Wootz but the command line and the JSON of the plan:

- Pruning: `wootz-opt --pass=prune-filters` at 0.5, each of the first `--each-layer` layers alone, and `prune-blocks`.
  Which input channels a layer lost is read off the weights that the pruned file has left. In the original file a mask
  sets these to zero before the layer, and the filters that the plan gives up to zero behind their layer. Both run in
  ONNX Runtime on the same random inputs and have to agree: max|a-b|/max|b| at most 1e-5, or 20 times what ONNX
  Runtime's own optimisations change in the original.
- Text: the pruned model as .onnxtxt, read back and written again, computes the same.
- Training: the training graph as file has to load without a word of warning; every float weight of a convolution,
  product, recurrent layer or operator of another domain has to be among what is trained; the step goes along the
  gradient (a central difference of the loss along the step equals the step's squared length over the rate).

Refused is what ends with exit code 1 and one line; a crash is a traceback, another exit code, or a fault that Wootz
says is its own; unjudged is what the oracle can't run. A model counts as the worst of its checks, and says which.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnxruntime
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

TOLERANCE, TIMES_NOISE = 1e-5, 20
KINDS = ("right", "unjudged", "refused", "wrong", "crash")
BATCH, EXTENTS = 2, (64, 32, 224, 96)
"""What symbolic dimensions are: the first of an input, and the others, tried in turn."""
FLOATS = (np.float16, np.float32, np.float64)
TIMEOUT = 300
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "RNN", "GRU", "LSTM")
TRAINING = "training-mode,attach-loss{%s},build-gradients,apply-optimizer{type=SGD},legalize"
RATE = 1e-3

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Verdict:
    """What became of one check: one of KINDS, and what to know about it."""

    kind: str
    what: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.kind}{f', {self.detail}' if self.detail else ''}"


class Refused(Exception):
    """Wootz ended with exit code 1 and one line."""


class Crashed(Exception):
    """Wootz ended otherwise."""


class Unjudged(Exception):
    """The oracle can't tell."""


class Wrong(Exception):
    """Wootz gave a result that isn't right."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--each-layer", type=int, default=6, help="prune that many layers alone, too")
    parser.add_argument("--only", default="", help="only files with this in their name")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args()
    counts = dict.fromkeys(KINDS, 0)
    for file in sorted(options.folder.rglob("*.onnx")):
        if options.only not in file.name:
            continue
        start = time.perf_counter()
        verdicts = list(judge(file, options.each_layer))
        worst = max((v.kind for v in verdicts), key=KINDS.index)
        counts[worst] += 1
        told = [v for v in verdicts if v.kind == worst] if worst != "right" else verdicts
        told = [v for v in told if v.kind != "right" or v.detail]
        print(f"{file.name}: {worst} [{time.perf_counter() - start:.1f} s]  {'; '.join(map(str, told))}", flush=True)
    if options.json:
        print(json.dumps(counts))
    return 1 if counts["wrong"] or counts["crash"] else 0


def judge(file: Path, each_layer: int) -> Iterator[Verdict]:
    """All checks of one model."""
    with tempfile.TemporaryDirectory() as folder:
        pruning = Pruning(file, Path(folder))
        yield verdict("prune-filters", lambda: pruning.check("prune-filters{rate=0.5}"))
        for layer in pruning.layers[:each_layer]:
            yield verdict(f"{layer} alone", lambda layer=layer: pruning.check(alone(layer)) and "")
        yield verdict("prune-blocks", lambda: pruning.check("prune-blocks{rate=0.5}"))
        yield verdict("text", lambda: pruning.check_text())
        yield verdict("training", lambda: check_training(file, Path(folder)))


def alone(layer: str) -> str:
    return f"prune-filters{{rates={json.dumps(f'{layer}:0.5')}}}"


def verdict(what: str, check: Any) -> Verdict:
    try:
        return Verdict("right", what, check())
    except Refused as error:
        return Verdict("refused", what, str(error))
    except Unjudged as error:
        return Verdict("unjudged", what, str(error))
    except Wrong as error:
        return Verdict("wrong", what, str(error))
    except Crashed as error:
        return Verdict("crash", what, str(error))


def wootz_opt(*arguments: str | Path) -> None:
    """Raises Refused or Crashed where it doesn't end with exit code 0."""
    command = [sys.executable, "-c", "from wootz.tools.opt import main; main()", *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise Crashed(f"not done after {TIMEOUT} s") from None
    said = done.stderr.strip()
    last = said.splitlines()[-1] if said else ""
    if done.returncode == 1 and "Traceback" not in said and "fault of wootz" not in said:
        raise Refused(last.removeprefix("error: ").replace(str(arguments[-1]), Path(arguments[-1]).name)[:300])
    if done.returncode != 0:
        raise Crashed(f"exit code {done.returncode}: {last[:300]}")


# Pruning


class Pruning:
    """One model that is pruned in several ways. `layers` are the prunable ones, once the first way has been tried."""

    def __init__(self, file: Path, folder: Path):
        self.file, self.pruned_file, self.plan_file = file, folder / "pruned.onnx", folder / "plan.json"
        self.folder = folder
        self.layers: list[str] = []

    def check(self, pass_text: str) -> str:
        """The share of the parameters left. Raises Refused, Crashed or Wrong."""
        self.pruned_file.unlink(missing_ok=True)
        wootz_opt(f"--pass={pass_text}", f"--plan={self.plan_file}", "-o", self.pruned_file, self.file)
        plan = json.loads(self.plan_file.read_text())["layers"]
        pruned = [row for row in plan if len(row["keep"]) < row["filters"]]
        self.layers = self.layers or [row["layer"] for row in pruned]
        original, left = Network(onnx.load(self.file)), Network(onnx.load(self.pruned_file))
        if not pruned:
            raise Wrong("nothing is pruned, and nothing is said")
        feeds = original.working_feeds()
        original.observe_weights(feeds)
        left.observe_weights(feeds)
        masked = mask(original, left, plan)
        expected, optimised = original.run_variant(masked, feeds, False), original.run_variant(masked, feeds, True)
        try:
            found = left.run(feeds)
        except Exception as error:
            raise Wrong(f"the pruned network can't run: {one_line(error)}") from None
        compare(found, expected, optimised)
        return f"{left.size() / original.size():.0%} left{original.how}"

    def check_text(self) -> str:
        if not self.pruned_file.exists():
            return ""
        text, again = self.folder / "pruned.onnxtxt", self.folder / "again.onnx"
        wootz_opt(self.pruned_file, "-o", text)
        wootz_opt(text, "-o", again)
        left, copy = Network(onnx.load(self.pruned_file)), Network(onnx.load(again))
        feeds = left.working_feeds()
        compare(copy.run(feeds), left.run(feeds), left.run(feeds))
        return ""


def compare(found: Arrays, expected: Arrays, optimised: Arrays) -> None:
    for name, wanted in expected.items():
        if name not in found:
            raise Wrong(f"output {name!r} is missing")
        noise = difference(optimised[name], wanted)
        limit = max(TOLERANCE, TIMES_NOISE * noise)
        error = difference(found[name], wanted)
        if not error <= limit:
            raise Wrong(f"output {name!r} differs by {error:.2g} (noise {noise:.1g}) from the masked original")


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """max|a-b| / max|b|; infinite where shapes or NaNs differ."""
    if a.shape != b.shape:
        return float("inf")
    if a.dtype.kind not in "fiub":
        return 0.0 if (a == b).all() else float("inf")
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    if not np.array_equal(np.isnan(wide_a), np.isnan(wide_b)):
        return float("inf")
    distance = np.max(np.abs(np.nan_to_num(wide_a) - np.nan_to_num(wide_b)), initial=0.0)
    return float(distance / max(np.max(np.abs(np.nan_to_num(wide_b)), initial=0.0), 1e-30))


class Network:
    """A model that runs in ONNX Runtime, or in the reference implementation where ONNX Runtime can't read it."""

    def __init__(self, proto: onnx.ModelProto):
        self.proto = onnx.inliner.inline_local_functions(proto) if proto.functions else proto
        self.how = ""
        self.weights: Arrays = {}
        """What the layers' weight operands hold, by the layers' results: names of nodes need not be unique."""

    @property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        constants = {t.name for t in self.proto.graph.initializer}
        return [i for i in self.proto.graph.input if i.name not in constants]

    def constants(self) -> Arrays:
        graph = self.proto.graph
        found = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        return found

    def size(self) -> int:
        return sum(a.size for a in self.constants().values() if a.ndim > 1) or 1

    def working_feeds(self) -> Arrays:
        """Random inputs with which the network runs. Raises Unjudged where there are none."""
        failure = ""
        for extent in EXTENTS:
            feeds = self.random_feeds(extent)
            try:
                self.run(feeds)
                return feeds
            except Exception as error:
                failure = one_line(error)
        raise Unjudged(f"the oracle can't run the original: {failure}")

    def random_feeds(self, extent: int) -> Arrays:
        generator = np.random.default_rng(0)
        feeds = {}
        for info in self.inputs:
            type_ = info.type.tensor_type
            dims = [d.dim_value for d in type_.shape.dim]
            shape = [d if d > 0 else BATCH if i == 0 else extent for i, d in enumerate(dims)]
            dtype = helper.tensor_dtype_to_np_dtype(type_.elem_type)
            is_float = np.dtype(dtype).kind not in "iub"
            values = generator.standard_normal(shape) if is_float else generator.integers(0, 2, shape)
            feeds[info.name] = np.asarray(values).astype(dtype)
        return feeds

    def run(self, feeds: Arrays) -> Arrays:
        return self.run_variant(self.proto, feeds, True)

    def run_variant(self, proto: onnx.ModelProto, feeds: Arrays, optimised: bool) -> Arrays:
        """The outputs of `proto`, which has this network's inputs, by name."""
        names = [o.name for o in proto.graph.output]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
        try:
            session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
        except Exception:
            if max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=0) < 22:
                raise
            self.how = " (judged by onnx.reference)"
            return dict(zip(names, ReferenceEvaluator(proto).run(None, feeds), strict=True))
        return dict(zip(names, session.run(names, feeds), strict=True))

    def observe_weights(self, feeds: Arrays) -> None:
        """Finds `weights`: constants as they are, computed ones by running the network."""
        constants = self.constants()
        operands = {n.output[0]: weight_operand(n) for n in self.proto.graph.node if weight_operand(n)}
        computed = sorted({t for t in operands.values() if t not in constants and self._is_weight(t, constants)})
        if computed:
            proto = onnx.ModelProto()
            proto.CopyFrom(self.proto)
            del proto.graph.output[:]
            proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in computed)
            constants |= self.run_variant(proto, feeds, False)
        self.weights = {layer: constants[t] for layer, t in operands.items() if t in constants}

    def _is_weight(self, tensor: str, constants: Arrays) -> bool:
        """Whether it is computed from constants alone."""
        producers = {o: n for n in self.proto.graph.node for o in n.output}
        pending, seen = [tensor], set()
        while pending:
            name = pending.pop()
            if name in constants or not name or name in seen:
                continue
            seen.add(name)
            if name not in producers:
                return False
            pending.extend(producers[name].input)
        return True


def weight_operand(node: onnx.NodeProto) -> str:
    is_layer = node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and len(node.input) > 1
    return node.input[1] if is_layer else ""


def mask(original: Network, left: Network, plan: list[Any]) -> onnx.ModelProto:
    """The original with zeros in place of what was removed, before each layer and behind it."""
    proto = onnx.ModelProto()
    proto.CopyFrom(original.proto)
    opset = max(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))
    masks = Masks(proto, opset)
    keep = keep_sets(left.proto.graph, plan)
    for node in list(proto.graph.node):
        layer = node.output[0]
        if weight_operand(node) and layer in keep and layer in original.weights and layer in left.weights:
            before, after = original.weights[layer], left.weights[layer]
            masks.mask_inputs(node, kept_inputs(node, before, after, keep[layer]))
            masks.mask_filters(node, keep[layer], filters(node, before))
    return masks.proto


def keep_sets(graph: onnx.GraphProto, plan: list[Any]) -> dict[str, np.ndarray]:
    """The filters that the plan keeps, by the results of the layers, which it names as their nodes in the pruned file
    are named."""
    layers: dict[str, str] = {}
    for node in graph.node:
        if weight_operand(node):
            layers |= {node.output[0]: node.output[0], node.name: node.output[0]}
    return {layers[row["layer"]]: np.asarray(row["keep"]) for row in plan if row["layer"] in layers}


def filters(node: onnx.NodeProto, weight: np.ndarray) -> int:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Conv":
        return weight.shape[0]
    if node.op_type == "ConvTranspose":
        return weight.shape[1] * attributes.get("group", 1)
    return weight.shape[0] if attributes.get("transB") else weight.shape[-1]


def kept_inputs(node: onnx.NodeProto, before: np.ndarray, after: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """bool[inputs]: which of a layer's input channels (features) it still reads, by what its weights hold.

    Raises Wrong where the weights left are not those of the filters in `keep`.
    """
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    groups = attributes.get("group", 1)
    left: np.ndarray
    if node.op_type == "ConvTranspose":  # [inputs, filters of a group, ...]
        inputs, group_filters = before.shape[0] // groups, before.shape[1]
        rows = before.reshape(groups, inputs, group_filters, -1).swapaxes(1, 2).reshape(-1, inputs, before[0, 0].size)
        left_groups = after.shape[0] // max(1, inputs) if inputs == 1 else groups
        left_inputs = after.shape[0] // left_groups
        left = after.reshape(left_groups, left_inputs, after.shape[1], -1).swapaxes(1, 2)
        left = left.reshape(-1, left_inputs, after[0, 0].size)
    elif node.op_type == "Conv":
        rows, left = (w.reshape(*w.shape[:2], -1) for w in (before, after))
    else:
        is_transposed = bool(attributes.get("transB"))
        rows, left = (w[..., None] if is_transposed else w.swapaxes(-1, -2)[..., None] for w in (before, after))
        if rows.ndim != 3:
            return np.ones(rows.shape[-2], bool)
    if len(left) != len(keep):
        raise Wrong(f"{node.output[0]!r} has {len(left)} filters left, the plan says {len(keep)}")
    group_of = np.arange(len(rows)) // (len(rows) // groups)
    kept = np.zeros((groups, rows.shape[1]), bool)
    for group in np.unique(group_of[keep]):
        own = group_of[keep] == group
        kept[group, matched(rows[keep[own]], left[own], node.output[0])] = True
    return kept.ravel()


def matched(rows: np.ndarray, left: np.ndarray, layer: str) -> list[int]:
    """For each column of `left` the column of `rows` that equals it; both are [filters, columns, k]."""
    columns = rows.swapaxes(0, 1).reshape(rows.shape[1], -1).astype(np.float64)
    size = max(np.abs(columns).max(initial=0.0), 1e-30)
    found, after = [], -1
    for column in left.swapaxes(0, 1).reshape(left.shape[1], -1).astype(np.float64):
        distances = np.abs(columns - column).max(axis=1)
        equal = np.flatnonzero(distances <= 1e-5 * size)
        later = equal[equal > after]
        if not len(equal):
            raise Wrong(f"the weights left in {layer!r} are not those of the original")
        after = int(later[0]) if len(later) else int(equal[0])
        found.append(after)
    return found


class Masks:
    """Puts products with zeros and ones into a graph."""

    def __init__(self, proto: onnx.ModelProto, opset: int):
        self.proto, self.opset, self.count = proto, opset, 0
        self.types = tensor_types(proto)

    def mask_inputs(self, node: onnx.NodeProto, kept: np.ndarray) -> None:
        if kept.all():
            return
        result = self._product(node.input[0], kept, node, before=True)
        node.input[0] = result

    def mask_filters(self, node: onnx.NodeProto, keep: np.ndarray, count: int) -> None:
        """Behind the layer, or behind the BatchNormalization that is all that reads it."""
        kept = np.zeros(count, bool)
        kept[keep] = True
        if kept.all():
            return
        graph = self.proto.graph
        readers = [n for n in graph.node if node.output[0] in n.input]
        if len(readers) == 1 and readers[0].op_type == "BatchNormalization":
            node = readers[0]
        name = node.output[0]
        if any(o.name == name for o in graph.output):
            return  # outputs keep their channels
        readers = [n for n in graph.node if name in n.input]
        result = self._product(name, kept, node, before=False)
        for reader in readers:
            for i, operand in enumerate(reader.input):
                if operand == name:
                    reader.input[i] = result

    def _product(self, tensor: str, kept: np.ndarray, node: onnx.NodeProto, before: bool) -> str:
        self.count += 1
        layout = (1, -1, *(1,) * (self._rank(node) - 2)) if node.op_type not in ("Gemm", "MatMul") else (-1,)
        name = f"cases.mask{self.count}"
        values = kept.astype(self.types.get(tensor) or np.float32).reshape(layout)
        graph = self.proto.graph
        graph.initializer.append(numpy_helper.from_array(values, name))
        place = next(i for i, n in enumerate(graph.node) if n.output[:1] == node.output[:1])
        product = helper.make_node("Mul", [tensor, name], [f"{name}.product"])
        graph.node.insert(place if before else place + 1, product)
        return product.output[0]

    def _rank(self, node: onnx.NodeProto) -> int:
        constants = {t.name: len(t.dims) for t in self.proto.graph.initializer}
        if node.op_type == "BatchNormalization":
            producer = next(n for n in self.proto.graph.node if node.input[0] in n.output)
            return self._rank(producer)
        kernel = next((a.ints for a in node.attribute if a.name == "kernel_shape"), None)
        return len(kernel) + 2 if kernel else constants.get(weight_operand(node), 4)


def tensor_types(proto: onnx.ModelProto) -> dict[str, Any]:
    try:
        proto = onnx.shape_inference.infer_shapes(proto)
    except Exception:
        return {}
    infos = [*proto.graph.value_info, *proto.graph.input, *proto.graph.output]
    return {
        i.name: helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type)
        for i in infos
        if i.type.tensor_type.elem_type
    }


# Training


def check_training(file: Path, folder: Path) -> str:
    """Raises Refused, Crashed or Wrong."""
    original = Network(onnx.load(file))
    feeds = original.working_feeds()
    outputs = original.run(feeds)
    name, value = next(iter(outputs.items()))
    is_classifier = value.dtype in FLOATS and value.ndim == 2 and value.shape[1] > 1
    if value.dtype not in FLOATS:
        raise Unjudged("the oracle has no loss for an output that isn't of floats")
    loss = "" if is_classifier else "loss=mse"
    chosen = f"output={json.dumps(name)}" if len(outputs) > 1 else ""
    target = folder / "training.onnx"
    wootz_opt(f"--pass-pipeline={TRAINING % ' '.join(filter(None, (loss, chosen)))}", "-o", target, file)
    said, graph = heard(lambda: TrainingGraph(target))
    if said:
        raise Wrong(f"loading the training graph prints: {one_line(said)}")
    generator = np.random.default_rng(1)
    labels = (
        generator.integers(0, value.shape[1], value.shape[0])
        if is_classifier
        else generator.standard_normal(value.shape)
    )
    data = next(iter(feeds.values()))
    untrained = sorted(trainable(original, name) - graph.parameters)
    if untrained:
        raise Wrong(f"{untrained[0]!r} ({len(untrained)} in all) isn't trained, and nothing is said")
    graph.check_step(data, labels)
    return f"{len(graph.parameters)} parameters"


def trainable(network: Network, output: str) -> set[str]:
    """The float initializers of two and more axes that layers before `output` read, recurrent ones and those of other
    domains too."""
    graph = network.proto.graph
    weights = {t.name for t in graph.initializer if t.data_type in (1, 10, 11) and len(t.dims) > 1}
    needed, layers = {output}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            if node.op_type in WEIGHTED or node.domain not in ("", "ai.onnx"):
                layers.append(node)
    return {operand for node in layers for operand in node.input[1:] if operand in weights}


class TrainingGraph:
    """A training graph in ONNX Runtime, by what docs/training-graphs.md says."""

    def __init__(self, file: Path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        try:
            self.session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
        except Exception as error:
            raise Wrong(f"the training graph doesn't load: {one_line(error)}") from None
        self.has_dropout = any(n.op_type == "Dropout" for n in onnx.load(file).graph.node)
        self.interface = json.loads(self.session.get_modelmeta().custom_metadata_map["wootz.training"])
        self.parameters = {s["input"] for s in self.interface["slots"] if s["kind"] == "parameter"}
        self.state = initial_state(file)

    def check_step(self, data: np.ndarray, labels: np.ndarray) -> None:
        kinds = {i.name: i.type for i in self.session.get_inputs()}
        labels = labels.astype(np.int64 if "int64" in kinds[self.interface["labels"]] else np.float32)
        fixed = {self.interface["data"]: data, self.interface["labels"]: labels}

        def step(state: Arrays, rate: float) -> tuple[float, Arrays]:
            outputs = [*self.interface["losses"], *(s["output"] for s in self.interface["slots"])]
            known = {name: v for name, v in state.items() if name in kinds}
            feeds = {**fixed, **known, self.interface["learning_rate"]: np.float32(rate)}
            values = self.session.run(outputs, {k: np.asarray(v) for k, v in feeds.items()})
            inputs = [s["input"] for s in self.interface["slots"]]
            return float(values[0]), dict(zip(inputs, values[1:], strict=True))

        try:
            loss, after = step(self.state, RATE)
        except Exception as error:
            raise Wrong(f"the training graph doesn't run: {one_line(error)}") from None
        if not np.isfinite(loss) or not all(np.isfinite(after[p]).all() for p in self.parameters):
            raise Wrong("the step gives NaN or infinity")
        start = {p: self.state[p].astype(np.float64) for p in self.parameters}
        gradient = {p: (start[p] - after[p]) / RATE for p in self.parameters}
        length = sum(float((g * g).sum()) for g in gradient.values())
        if self.has_dropout or length == 0:
            return
        slopes = []
        for scale in (1e-1, 1e-2, 1e-3):
            reach = scale * max(abs(loss), 1e-3) / length
            ends = [
                step(
                    {**self.state, **{p: (start[p] + s * reach * gradient[p]).astype(np.float32) for p in start}}, 0.0
                )[0]
                for s in (1, -1)
            ]
            slopes.append((ends[0] - ends[1]) / (2 * reach) / length)
        if not min(abs(s - 1) for s in slopes) < 0.1:
            raise Wrong(f"the step isn't along the gradient: slopes {', '.join(f'{s:.3g}' for s in slopes)} for 1")


def initial_state(file: Path) -> Arrays:
    """The first value of each slot, from the file beside the graph that its metadata names."""
    metadata = {p.key: p.value for p in onnx.load(file).metadata_props}
    return dict(np.load(file.parent / metadata["wootz.initial-values"]))


def heard(call: Any) -> tuple[str, Any]:
    """What ONNX Runtime prints on standard error meanwhile, and what `call` gives."""
    with tempfile.TemporaryFile() as sink, kept_stderr() as stderr:
        os.dup2(sink.fileno(), stderr)
        result = call()
        sink.seek(0)
        return sink.read().decode(errors="replace").strip(), result


@contextlib.contextmanager
def kept_stderr() -> Iterator[int]:
    sys.stderr.flush()
    descriptor = 2
    saved = os.dup(descriptor)
    try:
        yield descriptor
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)


def one_line(error: object) -> str:
    return " ".join(str(error).split())[:200]


if __name__ == "__main__":
    sys.exit(main())
