"""What a specialist would choose where nobody has said anything: objective, subspace, solvers.

docs/recipes.md says which recipes were compared to come to these numbers, and on what.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from wootz.passes.blocks.costs import TRAINING_FACTOR
from wootz.passes.errors import WootzError
from wootz.passes.plan.metrics import Metric
from wootz.passes.plan.objective import Constraint, Objective
from wootz.passes.plan.sampling import sample_subspace
from wootz.passes.plan.solver import LearningRatePolicy, Solver, SolverType
from wootz.passes.plan.subspace import Configuration, Subspace
from wootz.passes.pruning.rounding import Rounding
from wootz.runtime.recalibration import CALIBRATION_IMAGES

Effort = Literal["quick", "normal", "thorough"]

BOUNDS: Mapping[Metric, Constraint] = {
    Metric.ACCURACY: Constraint(Metric.ACCURACY, ">=", offset=-0.01, scale=1.0),
    Metric.AGREEMENT: Constraint(Metric.AGREEMENT, ">=", offset=0.97),
    Metric.OUTPUT_ERROR: Constraint(Metric.OUTPUT_ERROR, "<=", offset=0.02),
}
"""What the smallest network has to keep: all but a point of accuracy; of the answers of a classifier 97 %, of which
many that change were wrong before; of the power of other outputs 98 %, as a signal-to-noise ratio of 17 dB."""
SHARE_KEPT = 0.98
"""Of other qualities, in those of the full network; one that is better where it is lower may grow by as much."""
MOST_LOST: Mapping[Metric, float] = {Metric.ACCURACY: 0.05, Metric.AGREEMENT: 0.1, Metric.OUTPUT_ERROR: 0.1}
"""Of the full network's quality, by the nearest network where none meets its bound, and nobody asked for that."""
MOST_LOST_OF_OTHERS = 0.1
"""Of other qualities, as a share of the full network's."""
RATES = (0.3, 0.5, 0.7)
"""Those of the paper (section 7.1)."""
NETWORKS: Mapping[Effort, int] = {"quick": 8, "normal": 16, "thorough": 40}
"""Configurations in the subspace."""
GRID = tuple(eighth / 8 for eighth in range(1, 8))
"""The rates of a search."""
SEARCHED: Mapping[Effort, int] = {"quick": 6, "normal": 10, "thorough": 20}
"""Networks that a search fine-tunes."""
SHARE_OF_LOOKS = 0.5
FEWEST_LOOKS, MOST_LOOKS = 48, 240
LEAST_NETWORKS = 4
"""With fewer there is little to share, and little to choose."""
STEPS: Mapping[Effort, float] = {"quick": 0.4, "normal": 1.0, "thorough": 3.0}
"""Training steps, in those of a recipe."""
BATCH_SIZE = 32
LEAST_BATCH_SIZE = 4
"""Statistics of batches of fewer images mean nothing."""
LEAST_BATCHES = 4
"""Batches that the training images make at least: with fewer, each step sees nearly all of them."""
CLIPPED_NORM = 1.0
"""Of the gradients of networks that normalise no activations: without a bound they diverge."""
TESTS = 6
"""Tests in a training, at each of which it may end."""
SHARE_OF_TESTS = 0.25
"""Time that tests may take, in that of the training: an image going forward counts as a third of one trained with."""
LEAST_STEPS = 20
SHARE_OF_A_GIVEN_NETWORK = 0.5
"""Of the loss in fine-tuning, what is learned from a full network that comes with its weights: it may know more than
these images show. One that is trained on them doesn't."""
NOTHING_TO_PRUNE = "the network has no module in which filters can be removed: name some by hand (docs/modules.md)"
FAST_MULTIPLE = 8
"""Convolutions of so many channels, or multiples, are fast on CPUs and GPUs (docs/benchmarks.md)."""


@dataclass(frozen=True)
class Recipe:
    """How something is trained: for so many `epochs` of the training images, but from `least` to `most` steps.

    The learning rate is for batches of BATCH_SIZE images: `base_lr`, or `unnormalized_lr` where a network normalises no
    activations. The first `warmup` of the steps rise to it.
    """

    type: SolverType
    base_lr: float
    unnormalized_lr: float
    epochs: float
    least: int
    most: int
    lr_policy: LearningRatePolicy = "cosine"
    momentum: float = 0.9
    weight_decay: float = 0.0
    warmup: float = 0.0


FINE_TUNING = Recipe(SolverType.SGD, 0.005, 0.002, epochs=6, least=300, most=4000, weight_decay=5e-4, warmup=0.05)
PRE_TRAINING = Recipe(SolverType.ADAM, 0.008, 0.002, epochs=8, least=300, most=4000)
NEW_LAYERS = Recipe(SolverType.SGD, 0.02, 0.004, epochs=15, least=400, most=8000, weight_decay=5e-4, warmup=0.05)
FROM_SCRATCH = Recipe(SolverType.SGD, 0.05, 0.01, epochs=30, least=800, most=40000, weight_decay=5e-4, warmup=0.05)


@dataclass(frozen=True)
class Circumstances:
    """What solvers are derived from. `batch_size` is one that fits; `normalizes` says whether the network normalises
    activations, `untrained` which of its layers have no weights yet. `scale` is a factor of all steps."""

    training_images: int
    validation_images: int
    batch_size: int
    normalizes: bool
    untrained: Literal["none", "some", "all"] = "none"
    effort: Effort = "normal"
    scale: float = 1.0
    solver_mode: Literal["CPU", "GPU"] = "CPU"
    seed: int = 0


def fine_tuning_solver(circumstances: Circumstances) -> Solver:
    return solver_of(FINE_TUNING, circumstances, has_tests=True)


def pretraining_solver(circumstances: Circumstances) -> Solver:
    return solver_of(PRE_TRAINING, circumstances, has_tests=False)


def teacher_solver(circumstances: Circumstances) -> Solver:
    """For the training of the full network: of all of it, or of what is new in it.

    Where time is short it is cut less than the others: what the full network doesn't learn, no other one does.
    """
    recipe = FROM_SCRATCH if circumstances.untrained == "all" else NEW_LAYERS
    return solver_of(recipe, replace(circumstances, scale=math.sqrt(circumstances.scale)), has_tests=True)


def solver_of(recipe: Recipe, circumstances: Circumstances, has_tests: bool) -> Solver:
    """The recipe for so many images, with tests on the validation images now and then, or none."""
    batch_size = circumstances.batch_size
    steps = min(max(recipe.epochs * circumstances.training_images / batch_size, recipe.least), recipe.most)
    steps *= STEPS[circumstances.effort] * circumstances.scale
    max_iter = max(LEAST_STEPS, round(steps))
    rate = recipe.base_lr if circumstances.normalizes else recipe.unnormalized_lr
    rate *= min(1.0, batch_size / BATCH_SIZE)
    is_clipped = recipe.type is SolverType.SGD and not circumstances.normalizes
    return Solver(
        type=recipe.type,
        base_lr=float(f"{rate:.3g}"),
        lr_policy=recipe.lr_policy,
        max_iter=max_iter,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        clip_gradients=CLIPPED_NORM if is_clipped else -1.0,
        warmup_iter=round(recipe.warmup * max_iter),
        batch_size=batch_size,
        test_interval=test_interval(max_iter, batch_size, circumstances.validation_images) if has_tests else 0,
        average_loss=20,
        solver_mode=circumstances.solver_mode,
        random_seed=circumstances.seed,
    )


def test_interval(steps: int, batch_size: int, validation_images: int) -> int:
    """Steps between two tests: TESTS of them in a training, fewer where they would take too long."""
    cheap = math.ceil(validation_images / (3 * batch_size * SHARE_OF_TESTS))
    return min(steps, max(math.ceil(steps / TESTS), cheap))


def wanted_batch_size(training_images: int) -> int:
    """BATCH_SIZE, or the power of two below it of which the images make LEAST_BATCHES."""
    size = BATCH_SIZE
    while size > LEAST_BATCH_SIZE and LEAST_BATCHES * size > training_images:
        size //= 2
    return min(size, training_images)


def fitting_batch_size(wanted: int, memory: Callable[[int], int], budget: int | None) -> int:
    """`wanted`, halved until what a step takes, by `memory`, is within `budget` bytes.

    Raises WootzError where LEAST_BATCH_SIZE images don't fit.
    """
    size = wanted
    while budget is not None and memory(size) > budget:
        if size <= LEAST_BATCH_SIZE:
            raise WootzError(
                f"a training step with {size} images takes {memory(size) / 1e9:.1f} GB, of which there are "
                f"{budget / 1e9:.1f}: --memory says how much it may take, --size takes smaller images"
            )
        size = max(LEAST_BATCH_SIZE, size // 2)
    return size


def default_objective(quality: Metric) -> Objective:
    """The smallest network of about the full one's quality."""
    if quality.higher_is_better:
        relative = Constraint(quality, ">=", offset=0.0, scale=SHARE_KEPT)
    else:
        relative = Constraint(quality, "<=", offset=0.0, scale=round(2 - SHARE_KEPT, 6))
    return Objective("min", Metric.MODEL_SIZE, (BOUNDS.get(quality, relative),))


def most_lost(quality: Metric, of_full: float) -> float:
    """What the nearest network may lose of a quality of which the full one has `of_full`."""
    return MOST_LOST.get(quality, MOST_LOST_OF_OTHERS * abs(of_full))


def default_subspace(least: Mapping[str, Mapping[float, float]], count: int, seed: int) -> Subspace:
    """`count` configurations, or as many as there are: each of RATES in all modules, the least of them in every second
    one, then random ones whose sizes are spread.

    `least` has for each module the rate that stands for each of RATES (`BlockPruner.least_rates`), 0 where nothing of
    it can be removed. The second kind is there to be found where time is too short for the others. A larger subspace
    begins with a smaller one of the same seed. Raises WootzError where no module can be pruned.
    """
    pruned = [module for module, taken in least.items() if any(taken[rate] for rate in RATES)]
    if not pruned:
        raise WootzError(NOTHING_TO_PRUNE)
    possible = math.prod(len({taken[rate] for rate in RATES}) for taken in least.values())
    uniform: list[Configuration] = [tuple(taken[rate] for taken in least.values()) for rate in reversed(RATES)]
    seconds = pruned[1::2] or pruned
    uniform.append(tuple(taken[min(RATES)] if module in seconds else 0.0 for module, taken in least.items()))
    sampled = sample_subspace(tuple(least), RATES, min(count, possible), seed, "spread", least).configurations
    different = dict.fromkeys(configuration for configuration in (*uniform, *sampled) if any(configuration))
    return Subspace(tuple(least), tuple(different)[:count])


def networks_to_try(circumstances: Circumstances) -> int:
    """Configurations in the subspace; `scale` only ever makes them fewer."""
    wanted = NETWORKS[circumstances.effort]
    return max(min(LEAST_NETWORKS, wanted), round(wanted * min(1.0, circumstances.scale)))


def networks_to_search(circumstances: Circumstances) -> int:
    """Networks that a search fine-tunes at most; `scale` only ever makes them fewer."""
    wanted = SEARCHED[circumstances.effort]
    return max(LEAST_NETWORKS, round(wanted * min(1.0, circumstances.scale)))


def looks(circumstances: Circumstances, solver: Solver, networks: int) -> int:
    """Networks that a search looks at: as many as take SHARE_OF_LOOKS of the time of its fine-tunings."""
    trained = TRAINING_FACTOR * solver.max_iter * solver.iter_size * solver.batch_size
    looked_at = CALIBRATION_IMAGES + circumstances.validation_images
    return min(max(FEWEST_LOOKS, round(SHARE_OF_LOOKS * networks * trained / looked_at)), MOST_LOOKS)


def rounding(round_to: int | None, rates: tuple[float, ...]) -> Rounding:
    """To multiples of `round_to` filters; where nobody says it of FAST_MULTIPLE, and of fewer in layers in which
    `rates` would come to the same."""
    if round_to is not None:
        return Rounding(round_to)
    return Rounding(FAST_MULTIPLE, rates)
