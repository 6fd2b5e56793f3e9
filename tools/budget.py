"""Makes a run fit into a time: cuts steps and networks, as far as these are chosen and not given."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np

from wootz.frontend.subspace import print_subspace
from wootz.passes.errors import WootzError
from wootz.runtime.defaults import Circumstances
from wootz.runtime.expected_time import ExpectedTime, expected_time, trainings_of
from wootz.runtime.job import Job
from wootz.runtime.run_directory import SUBSPACE_FILE
from wootz.runtime.speed import speed
from wootz.runtime.store.amounts import show_seconds
from wootz.runtime.survey import one_group, space_costs, survey_space, survey_subspace
from wootz.runtime.tasks.workshop import Workshop
from wootz.tools.companions import Companions

SHARE_OF_BUDGET = 0.8
"""What is expected may take so much of the time: expectations are rough."""
SCALES = tuple(0.85**i for i in range(20))
"""Factors of steps and networks that are tried, down to a twentieth."""


def within_budget(
    job: Job, budget: float, choose: Callable[[Circumstances], Companions], circumstances: Circumstances, at: Workshop
) -> Job:
    """The job with companions that `choose` gives for as large a scale as `budget` seconds allow, and a note on it.

    Raises WootzError where even a single network doesn't fit.
    """
    its_speed = speed(at.trainer, at.network, job.solver, job.lesson, at.instructor(at.architecture))

    @cache
    def scaled(scale: float) -> Job:
        return with_companions(job, choose(replace(circumstances, scale=scale)))

    def expected(candidate: Job) -> ExpectedTime:
        pruner = at.architecture.rounding_to(candidate.rounding)
        if candidate.search is not None:
            space = candidate.search.space
            survey = survey_space(pruner, space, space_costs(pruner, space), candidate.subspace, one_group)
        else:
            survey = survey_subspace(pruner, candidate.subspace, job.identifier, one_group)
        return expected_time(survey, trainings_of(candidate, at.examples_once(candidate)), its_speed)

    def fits(candidate: Job) -> bool:
        return expected(candidate).total <= SHARE_OF_BUDGET * budget

    found = bisect_left(SCALES, True, key=lambda scale: fits(scaled(scale)))
    cut = scaled(SCALES[min(found, len(SCALES) - 1)])
    while not fits(cut):
        fewer = _networks(cut) - 1
        if not fewer or not (SUBSPACE_FILE in cut.chosen or cut.search is not None):
            raise WootzError(
                f"--budget: {show_seconds(budget)} are too short for one network: about "
                f"{show_seconds(expected(cut).total / SHARE_OF_BUDGET)} are needed ({show_expected(expected(cut))})"
            )
        cut = with_networks(cut, fewer)
    return replace(cut, notes=(*cut.notes, _note(job, cut, budget, expected(cut))))


def with_companions(job: Job, companions: Companions) -> Job:
    return replace(
        job,
        objective=companions.objective,
        subspace=companions.subspace,
        search=companions.search,
        solver=companions.solver,
        teacher_solver=companions.teacher_solver,
        pretrain_solver=companions.pretrain_solver,
        chosen={**job.chosen, **companions.chosen},
    )


def _networks(job: Job) -> int:
    """How many are fine-tuned."""
    return len(job.subspace.configurations) if job.search is None else job.search.networks


def with_networks(job: Job, count: int) -> Job:
    """With the so many networks that lose least; a search finds out which."""
    if job.search is not None:
        return replace(job, search=replace(job.search, networks=count))
    by_loss = sorted(job.subspace.configurations, key=lambda configuration: sum(map(np.mean, configuration)))
    fewer = replace(job.subspace, configurations=tuple(by_loss[:count]))
    return replace(job, subspace=fewer, chosen={**job.chosen, SUBSPACE_FILE: print_subspace(fewer).encode()})


def show_expected(expected: ExpectedTime) -> str:
    """`plan 12 s, full network 3 min, blocks 9 min, networks 8 min`."""
    phases = {
        "plan": expected.plan,
        "full network": expected.teacher,
        "blocks": expected.blocks,
        **({"scores": expected.scoring} if expected.scoring else {}),
        "networks": expected.networks,
    }
    return ", ".join(f"{name} {show_seconds(seconds)}" for name, seconds in phases.items())


def _note(before: Job, cut: Job, budget: float, expected: ExpectedTime) -> str:
    all_, left = _networks(before), _networks(cut)
    parts = [f"{left} of {all_} networks"] if left < all_ else []
    steps = cut.solver.max_iter / before.solver.max_iter
    parts += [f"{100 * steps:.0f} % of the steps"] if steps < 1 else []
    said = f"cut to {' and '.join(parts)}" if parts else "nothing is cut"
    return (
        f"To fit into {show_seconds(budget)}, {said}: one worker is expected to take at most "
        f"{show_seconds(expected.total)} ({show_expected(expected)})."
    )
