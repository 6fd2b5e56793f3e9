"""The options of the commands that explore: most of them are the same for `wootz run` and `wootz search`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from wootz.passes.blocks.identifier import Method
from wootz.passes.plan.lesson import NO_LOSS, TEMPERATURE, LossKind
from wootz.passes.plan.transform import Resize
from wootz.runtime.defaults import SHARE_OF_A_GIVEN_NETWORK
from wootz.runtime.run_directory import CommandName
from wootz.tools.duration import Duration
from wootz.tools.memory import Memory
from wootz.tools.models import round_to_option, size_option
from wootz.tools.opset import Opset
from wootz.tools.rates import Rates

F = TypeVar("F", bound=Callable[..., Any])
Option = Callable[[Callable[..., Any]], Callable[..., Any]]


class _OfOne:
    """An option that one command has."""

    def __init__(self, option: Option, command: CommandName):
        self.option, self.command = option, command


def for_run(option: Option) -> _OfOne:
    return _OfOne(option, "run")


def for_search(option: Option) -> _OfOne:
    return _OfOne(option, "search")


OPTIONS: tuple[Option | _OfOne, ...] = (
    click.argument("model", required=False),
    click.option(
        "--weights",
        metavar="FILE",
        help="Weights of a prototxt, .caffemodel[.h5] (default: that of its name beside it).",
    ),
    click.option("--scores", "--output", metavar="NAME", help="The network's output with the scores, of several."),
    size_option,
    click.option(
        "--new-head/--keep-head",
        default=None,
        help="Whether the last layer starts anew (default: where the data have other classes).",
    ),
    click.option(
        "--data",
        metavar="DIR|FILE",
        help="Folder of class folders or images, .npy, IDX or LMDB; .npz, .csv, .jsonl, .parquet; 'digits'; "
        "FILE.py:NAME, a function that gives arrays.",
    ),
    click.option(
        "--classes",
        metavar="FILE",
        help="Which output of the network each class is: a class a line, or JSON {class: output}.",
    ),
    click.option(
        "--resize",
        type=click.Choice(get_args(Resize)),
        help="How photographs get the network's size (default: crop; for Caffe's networks squash).",
    ),
    click.option(
        "--cache",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Keeps decoded photographs (default: $WOOTZ_CACHE, else one a user).",
    ),
    for_run(click.option("--subspace", metavar="FILE", help="Configurations to try: .json, .csv, .npy or pickle.")),
    for_search(
        click.option(
            "--subspace",
            metavar="FILE",
            help="Choose among these configurations alone, all of which are looked at: .json, .csv, .npy or pickle.",
        )
    ),
    for_search(
        click.option(
            "--rates",
            type=Rates(),
            metavar="R,R,…",
            help="Rates that each module may have (default: 0.125 to 0.875 in eighths).",
        )
    ),
    for_search(
        click.option(
            "--skip/--no-skip",
            default=True,
            show_default=True,
            help="Whether modules may be left out whose input and output have the same shape.",
        )
    ),
    click.option("--objective", metavar="TEXT|FILE", help="For example 'min ModelSize constraint Accuracy > 0.8'."),
    click.option(
        "--metric",
        metavar="FILE.py:NAME",
        help="Your own metric, a function (outputs, targets) -> number, which networks are judged by.",
    ),
    click.option("--solver", metavar="FILE", help="Solver prototxt for training and fine-tuning."),
    click.option("--teacher-solver", metavar="FILE", help="Solver for training the full network (default: --solver)."),
    click.option("--pretrain-solver", metavar="FILE", help="Solver prototxt for the tuning blocks."),
    click.option(
        "--effort",
        type=click.Choice(["quick", "normal", "thorough"]),
        show_default="normal",
        help="How long trainings are, and how many networks are tried, where that is chosen.",
    ),
    click.option(
        "--budget",
        type=Duration(),
        metavar="30m|2h",
        help="Time into which the run shall fit: steps and networks that are chosen are cut.",
    ),
    for_search(
        click.option(
            "--networks",
            type=click.IntRange(min=1),
            metavar="N",
            help="Networks that are fine-tuned at most, beside those known before (default: 6, 10 or 20 by --effort).",
        )
    ),
    for_search(
        click.option(
            "--looks",
            type=click.IntRange(min=1),
            metavar="N",
            help="Networks that are assembled and measured without training at most, beside those known before "
            "(default: as many as take half of the time of the fine-tunings, but 48 to 240; of a list 48).",
        )
    ),
    for_search(
        click.option(
            "--latency-table",
            metavar="FILE",
            help="Milliseconds of the modules on another machine, as wootz latency writes them.",
        )
    ),
    click.option(
        "--loss",
        type=click.Choice([*get_args(LossKind), NO_LOSS]),
        help="Between outputs and the targets of the data (default: what both allow); none: networks learn from the "
        "full one alone.",
    ),
    click.option(
        "--ignore-label",
        type=int,
        metavar="N",
        help="Nothing is learned from positions with this label (default: 255 or -1, where it is no class).",
    ),
    click.option(
        "--distill",
        type=click.FloatRange(0, 1),
        metavar="SHARE",
        help="Share of the loss by which pruned networks learn from the full one's scores, beside labels; 1: these "
        f"alone (default: {SHARE_OF_A_GIVEN_NETWORK:g} where the full network has its weights, 0 where it is trained).",
    ),
    click.option(
        "--temperature",
        type=click.FloatRange(0, min_open=True),
        metavar="T",
        help=f"Of these scores: higher ones show more of what lies behind the first class (default: {TEMPERATURE:g}).",
    ),
    click.option(
        "--distill-features",
        type=click.FloatRange(0),
        default=0.0,
        metavar="WEIGHT",
        help="Weight of a loss between the modules' outputs and those of the full network (default: 0).",
    ),
    click.option(
        "--output-weights",
        metavar="NAME=W,…",
        help="How much outputs count in what is learned, and in OutputError; 0 leaves one out (default: 1 each).",
    ),
    for_run(click.option("--out", metavar="RUN", help="Folder for the results (default: runs/NAME).")),
    for_search(click.option("--out", metavar="RUN", help="Folder for the results (default: runs/NAME-search).")),
    for_run(click.option("--baseline", is_flag=True, help="Explore the default networks too, and compare.")),
    click.option("--fresh", is_flag=True, help="Replace a run in --out instead of continuing it."),
    click.option("--dry-run", is_flag=True, help="Show what would be trained, and train nothing."),
    click.option(
        "--workers",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="Processes that train side by side, cores and GPUs divided (default: this one).",
    ),
    click.option("--executor", metavar="URL", help="dask://HOST:PORT: the workers of a Dask cluster."),
    for_run(
        click.option(
            "--static", is_flag=True, help="Assign networks to workers beforehand and in rounds, as the paper does."
        )
    ),
    click.option(
        "--store",
        "store_folder",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Keeps what is trained, for all runs (default: $WOOTZ_STORE, else one a user).",
    ),
    click.option(
        "--store-limit",
        type=Memory(),
        metavar="BYTES|20G",
        help="From which size on the store forgets what was not used for longest (default: 20G).",
    ),
    click.option(
        "--early-end/--no-early-end",
        default=True,
        show_default=True,
        help="A network is done at a test that meets the objective's bounds on quality, such as Accuracy.",
    ),
    click.option(
        "--give-up",
        is_flag=True,
        help="A training ends when the rest isn't expected to change that its quality misses or meets the bounds.",
    ),
    click.option(
        "--reference",
        type=click.Choice(["better", "given", "tuned"]),
        default="better",
        show_default=True,
        help="What 'full' in the objective means: the full network as given (or trained), after the fine-tuning "
        "that the pruned ones get, or the better of both.",
    ),
    for_run(
        click.option(
            "--identifier",
            type=click.Choice(get_args(Method)),
            default="maximal",
            show_default=True,
            help="How tuning blocks are identified: runs of modules that the same networks share, those that the "
            "paper's walk finds, each module for itself, or none, so that nothing is pre-trained.",
        )
    ),
    for_run(
        click.option(
            "--groups",
            type=click.Choice(["joint", "paper"]),
            default="joint",
            show_default=True,
            help="Blocks in one graph: all that fit into memory, or those that don't overlap.",
        )
    ),
    click.option(
        "--block-start",
        type=click.Choice(["closed-form", "remaining"]),
        default="closed-form",
        show_default=True,
        help="What pre-training begins with: layers solved for on training images, or the teacher's remaining weights.",
    ),
    click.option(
        "--block-end",
        type=click.Choice(["plateau", "all-steps"]),
        default="plateau",
        show_default=True,
        help="When a tuning block is done: when its error no longer falls, or with the last step.",
    ),
    click.option(
        "--memory",
        type=Memory(),
        metavar="BYTES|4G",
        help="For pre-training in a process (default: half of the machine's, over the processes; no bound on GPUs).",
    ),
    click.option(
        "--criterion",
        default="l1",
        show_default=True,
        help="Importance of a filter: l1, l2, fpgm, bn-scale, random; apoz and taylor look at training images.",
    ),
    round_to_option,
    click.option(
        "--check/--no-check",
        default=True,
        show_default=True,
        help="Execute each pruned network beside the masked original before it is trained.",
    ),
    click.option(
        "--normalize",
        metavar="NAME|MEAN:STD",
        help="How pixels become the input: imagenet, 0..1, -1..1, caffe, raw, or mean and standard deviation "
        "(default: what the network's file says, else what is found out).",
    ),
    click.option("--mean", help="Mean of the input pixels (0-255), one or one a channel: overrides the model's."),
    click.option("--scale", help="Factor after the mean was subtracted, one or one a channel."),
    click.option("--channel-order", type=click.Choice(["BGR", "RGB"]), help="Order of the input's channels."),
    click.option(
        "--allow-untrained",
        is_flag=True,
        help="Go on with a full network that only guesses, as it came or after its training.",
    ),
    click.option(
        "--freeze",
        multiple=True,
        metavar="NAME",
        help="Don't train this constant, or those that begin with a NAME ending in / or * (filters that are "
        "pruned go all the same).",
    ),
    click.option("--mirror/--no-mirror", default=None, help="Whether training flips images at random."),
    click.option(
        "--device", type=click.Choice(["cpu", "cuda"]), help="Default: the solver's solver_mode; without a GPU the CPU."
    ),
    click.option(
        "--target",
        type=click.Choice(["onnx", "onnx-cuda", "ort-training", "native"]),
        help="Operators of the training graphs (default: native where its operators were built, else onnx; on CUDA "
        "onnx-cuda).",
    ),
    click.option(
        "--precision",
        type=click.Choice(["float32", "float16"]),
        default="float32",
        show_default=True,
        help="Of convolutions and matrix products in training; float16 is for GPUs.",
    ),
    click.option("--tf32", is_flag=True, help="On CUDA: TensorFloat-32 in convolutions and matrix products."),
    click.option("--cuda-graphs", is_flag=True, help="On CUDA: start a training step as a whole, captured once."),
    click.option(
        "--data-on-device/--no-data-on-device",
        default=None,
        help="Keep the training images on the device (default: on GPUs, if they fit a quarter).",
    ),
    click.option(
        "--threads", type=click.IntRange(min=0), default=0, help="CPU threads a process (default: all cores)."
    ),
    click.option(
        "--print-ir-after",
        multiple=True,
        metavar="PASS",
        help="Print training graphs behind that pass, to standard error (workers: to their logs).",
    ),
    click.option("--verify-each", is_flag=True, help="Verify training graphs between the passes that make them."),
    click.option("--embed-normalization", is_flag=True, help="best.onnx takes raw RGB pixels."),
    click.option(
        "--opset",
        type=Opset(),
        default="original",
        show_default=True,
        metavar="N",
        help="Of the networks that are written; original: that of MODEL.",
    ),
    click.option("--keep-batchnorm", is_flag=True, help="Leave BatchNormalization in best.onnx as it is."),
    click.option(
        "--finish",
        multiple=True,
        metavar="PIPELINE",
        help="Make a further file of best.onnx by passes, and measure it: int8, to-float16, "
        "embed-normalization,int8; repeat for more.",
    ),
    click.option(
        "--seed",
        type=int,
        default=0,
        show_default=True,
        help="For fillers, the validation split, and the test split of the digits.",
    ),
)
"""In the order in which they are shown."""


def options_of(command: CommandName) -> Callable[[F], F]:
    """A decorator that gives a command its options."""

    def decorate(function: F) -> F:
        for option in reversed(OPTIONS):
            if isinstance(option, _OfOne):
                function = option.option(function) if option.command == command else function  # type: ignore[assignment]
            else:
                function = option(function)  # type: ignore[assignment]
        return function

    return decorate
