"""Trains a network with ONNX Runtime alone, from a training graph that `wootz-opt` wrote.

    wootz-opt --pass=training-mode --pass=attach-loss --pass=build-gradients \\
              --pass='apply-optimizer{type=SGD momentum=0.9}' --pass='legalize{target=onnx}' \\
              network.onnx -o training.onnx
    python examples/train_with_bare_onnxruntime.py training.onnx images.npy labels.npy

The graph is a pure function. Its metadata entry `wootz.training` (JSON) says which tensor is what:

    data, labels    inputs: float32[N,C,H,W] images and int64[N] classes, or float32 targets for mse and distillation
    learning_rate   input: a float32 scalar
    losses          outputs: float32 scalars, before the step
    slots           the state: each has an `input`, and an `output`, its value after the step, to be fed as that input
                    to the next run

The first values of the state lie beside it, in training.initial.npz, which the entry `wootz.initial-values` names.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

BATCH, STEPS, RATE = 32, 100, np.array(0.01, np.float32)

model_file, images, labels = sys.argv[1], np.load(sys.argv[2]).astype(np.float32), np.load(sys.argv[3])
session = onnxruntime.InferenceSession(model_file, providers=["CPUExecutionProvider"])
metadata = session.get_modelmeta().custom_metadata_map
interface = json.loads(metadata["wootz.training"])
state = dict(np.load(Path(model_file).with_name(metadata["wootz.initial-values"])))
label_type = next(i.type for i in session.get_inputs() if i.name == interface["labels"])
labels = labels.astype(np.int64 if label_type == "tensor(int64)" else np.float32)
outputs = interface["losses"] + [slot["output"] for slot in interface["slots"]]

random = np.random.default_rng(0)
for step in range(STEPS):
    chosen = random.integers(0, len(images), BATCH)
    batch = {interface["data"]: images[chosen], interface["labels"]: labels[chosen]}
    values = session.run(outputs, {**batch, interface["learning_rate"]: RATE, **state})
    state = dict(zip([slot["input"] for slot in interface["slots"]], values[len(interface["losses"]) :], strict=True))
    print(f"step {step}: loss {values[0]:.4f}")
np.savez("trained.npz", **state)
