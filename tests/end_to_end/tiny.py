"""A job whose trainings take a second together: a teacher, two blocks, three networks."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

STEPS = 8
_MODULE = """
layer {{ name: "{0}a" type: "Convolution" bottom: "{1}" top: "{0}a" module: "{0}"
        convolution_param {{ num_output: 8 kernel_size: 3 pad: 1 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "{0}r" type: "ReLU" bottom: "{0}a" top: "{0}a" module: "{0}" }}
layer {{ name: "{0}" type: "Convolution" bottom: "{0}a" top: "{0}" module: "{0}"
        convolution_param {{ num_output: 8 kernel_size: 1 weight_filler {{ type: "msra" }} }} }}
"""
_NETWORK = f"""
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 dim: 1 dim: 8 dim: 8 }} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param {{ num_output: 8 kernel_size: 3 pad: 1 weight_filler {{ type: "msra" }} }} }}
{_MODULE.format("m", "conv")} {_MODULE.format("n", "m")}
layer {{ name: "pool" type: "Pooling" bottom: "n" top: "pool" pooling_param {{ pool: AVE global_pooling: true }} }}
layer {{ name: "fc" type: "InnerProduct" bottom: "pool" top: "fc"
        inner_product_param {{ num_output: 2 weight_filler {{ type: "xavier" }} }} }}
"""
_SOLVER = f'base_lr: 0.05 lr_policy: "fixed" momentum: 0.9 max_iter: {STEPS} batch_size: 16 test_interval: 3'


@dataclass(frozen=True)
class Finished:
    """What came of a command."""

    code: int
    out: str
    err: str

    @property
    def trained(self) -> list[str]:
        """What a run says that it trained, of what was known before nothing."""
        return trained(self.out)


def trained(out: str) -> list[str]:
    """The titles of trainings in what a run prints."""
    lines = re.findall(r"^  (\S.*?): (?!step )(.*)", out, re.MULTILINE)
    return [title for title, said in lines if not said.endswith("known before")]


def make_job(folder: Path) -> Path:
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 2
    images = (generator.integers(0, 240, (120, 8, 8, 1)) + 12 * labels[:, None, None, None]).astype(np.uint8)
    np.savez(folder / "data.npz", x_train=images[:80], y_train=labels[:80], x_val=images[80:], y_val=labels[80:])
    (folder / "net.prototxt").write_text(_NETWORK)
    (folder / "solver.prototxt").write_text(_SOLVER)
    (folder / "pretrain.prototxt").write_text(_SOLVER.replace("0.05", "0.01"))
    (folder / "subspace.json").write_text("[[0.5, 0.5], [0.5, 0.75], [0.25, 0.75]]")
    (folder / "objective.txt").write_text("max Accuracy\nconstraint ModelSize < 0.95 * full")
    return folder


def arguments(job: Path, out: Path, store: Path) -> list[str]:
    """Those of `wootz` that run the job, whose full network guesses still after its few steps."""
    data = ("--data", job / "data.npz", "--mean", 128, "--scale", 1 / 128)
    options = ("--baseline", "--allow-untrained", "--out", out, "--store", store, "--threads", 1)
    return list(map(str, ("run", job, *data, *options)))


def without_times(value: object) -> object:
    """What is in a `result.json`, but for what is measured with a clock, and the command line."""
    if isinstance(value, dict):
        left_out = ("seconds", "seconds_saved", "speed", "command")
        return {k: without_times(v) for k, v in value.items() if k not in left_out}
    return [without_times(v) for v in value] if isinstance(value, list) else value
