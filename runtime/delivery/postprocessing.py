"""The postprocessing of the given network, behind networks that were trained without it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from wootz.passes.errors import WootzError
from wootz.passes.ir.files import save
from wootz.passes.ir.model import OPSET, Graph, Model, Variable
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform
from wootz.passes.transforms.add_postprocessing import AddPostprocessing
from wootz.runtime.batches import ordered_batches
from wootz.runtime.delivery.delivered import (
    DIFFERENCE,
    DIFFERENCE_IN_HALF,
    TRIED_IMAGES,
    Written,
    batch_of,
    described,
    in_given_types,
    open_file,
    predictor,
)
from wootz.runtime.inputs import Data, feeds, filled_up
from wootz.runtime.job import Job
from wootz.runtime.run_directory import whole_file
from wootz.runtime.session import evaluate


def write_whole(job: Job, written: Written) -> tuple[str, ...]:
    """Writes a delivered network with the postprocessing of the given one, where that has some, beside its own file.

    On a few images it has to give what that postprocessing makes of the outputs of the network's file:
    where it doesn't, there is no such file, and what is given is a note.
    """
    if job.whole is None:
        return ()
    file = written.file.with_name(whole_file(written.file.name))
    model = AddPostprocessing(whole=job.whole).apply(written.model).model
    try:
        verify(model)
        save(described(job, model, [t.name for t in written.model.graph.outputs]), file, written.opset)
        _check(job, written, replace(written, file=file))
    except WootzError as error:
        file.unlink(missing_ok=True)
        return (f"{file.name} is not written, {written.file.name} has no postprocessing: {error}",)
    return ()


def _check(job: Job, part: Written, whole: Written) -> None:
    """Raises WootzError where a file with postprocessing doesn't give what that makes of the outputs of the `part`."""
    samples = _few(job, InputTransform.from_json(part.model.metadata[TRANSFORM_KEY]))
    outputs = predictor(job.interface, open_file(part.file, part.opset, job.device))(samples)
    given = feeds(_few(job, job.test_transform), job.network.graph.inputs[0].name)
    expected = evaluate(_postprocessing(job), {**given, **outputs})
    found = open_file(whole.file, whole.opset, job.device).outputs(in_given_types(samples, job.interface))
    for name, wanted in expected.items():
        difference = _difference(found[name], wanted)
        if not difference <= (DIFFERENCE_IN_HALF if "float16" in (found[name].dtype, wanted.dtype) else DIFFERENCE):
            raise WootzError(f"{name} differs by {difference:.3g} from what it makes of the network's own outputs")


def _few(job: Job, transform: InputTransform) -> Data:
    """Samples of the validation split, as many as the network takes at once."""
    count = batch_of(job.interface) or TRIED_IMAGES
    (batch,) = ordered_batches(job.dataset.validation.part(slice(count)), transform, count)
    return filled_up(batch.data, count)


def _postprocessing(job: Job) -> Model:
    """The postprocessing alone: from the inputs and the outputs of the network that is trained."""
    assert job.whole is not None
    ends = (*job.network.graph.inputs, *job.network.graph.outputs)
    inputs = [Variable(t.name, t.dtype, t.shape) for t in ends]
    alone = Model(Graph(inputs=inputs, name="postprocessing", opset=OPSET))
    return AddPostprocessing(whole=job.whole).apply(alone).model


def _difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """max|a - b| / max|b|, of whole numbers max|a - b|; infinite for other shapes."""
    if found.shape != wanted.shape:
        return float("inf")
    a, b = (values.astype(np.float64) for values in (found, wanted))
    largest = np.abs(b).max(initial=0) if wanted.dtype.kind == "f" else 1.0
    return float(np.abs(a - b).max(initial=0) / (largest or 1.0))
