"""Where each pass lives: kebab-case name -> module. Modules are imported when a pass is asked for.

Other packages add passes by entry points of the group `wootz.passes`: `name = "package.module:Class"`.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from wootz.passes.base import Pass
from wootz.passes.errors import InputError, WootzError

PASSES: dict[str, str] = {
    "add-postprocessing": "wootz.passes.transforms.add_postprocessing:AddPostprocessing",
    "annotate-modules": "wootz.passes.transforms.annotate_modules:AnnotateModules",
    "apply-optimizer": "wootz.passes.training.apply_optimizer:ApplyOptimizer",
    "apply-plan": "wootz.passes.transforms.apply_plan:ApplyPlan",
    "assemble": "wootz.passes.transforms.assemble:Assemble",
    "attach-loss": "wootz.passes.training.attach_loss:AttachLoss",
    "block-convolutions": "wootz.passes.training.block_convolutions:BlockConvolutions",
    "blocked-layout": "wootz.passes.training.blocked_layout:BlockedLayout",
    "build-gradients": "wootz.passes.training.build_gradients:BuildGradients",
    "distill": "wootz.passes.training.distill:Distill",
    "eliminate-dead": "wootz.passes.transforms.eliminate_dead:EliminateDead",
    "embed-batches": "wootz.passes.training.embed_batches:EmbedBatches",
    "embed-normalization": "wootz.passes.transforms.embed_normalization:EmbedNormalization",
    "extract-blocks": "wootz.passes.transforms.extract_blocks:ExtractBlocks",
    "fix-sizes": "wootz.passes.transforms.fix_sizes:FixSizes",
    "fold-batchnorm": "wootz.passes.transforms.fold_batchnorm:FoldBatchNorm",
    "fold-constants": "wootz.passes.transforms.fold_constants:FoldConstants",
    "fuse-elementwise": "wootz.passes.training.fuse_elementwise:FuseElementwise",
    "fuse-softmax": "wootz.passes.transforms.fuse_softmax:FuseSoftmax",
    "image-classifier": "wootz.passes.transforms.image_classifier:ImageClassifier",
    "infer-shapes": "wootz.passes.transforms.infer_shapes:InferShapes",
    "int8": "wootz.passes.transforms.int8:Int8",
    "legalize": "wootz.passes.training.legalize:Legalize",
    "mixed-precision": "wootz.passes.training.mixed_precision:MixedPrecision",
    "print-stats": "wootz.passes.transforms.print_stats:PrintStats",
    "prune-blocks": "wootz.passes.transforms.prune_blocks:PruneBlocks",
    "prune-filters": "wootz.passes.transforms.prune_filters:PruneFilters",
    "replace-head": "wootz.passes.transforms.replace_head:ReplaceHead",
    "set-interface": "wootz.passes.transforms.set_interface:SetInterface",
    "strip-training": "wootz.passes.transforms.strip_training:StripTraining",
    "symmetric-pads": "wootz.passes.training.symmetric_pads:SymmetricPads",
    "teacher-student": "wootz.passes.transforms.teacher_student:TeacherStudent",
    "to-float16": "wootz.passes.transforms.to_float16:ToFloat16",
    "to-float32": "wootz.passes.transforms.to_float32:ToFloat32",
    "trainable-part": "wootz.passes.training.trainable_part:TrainablePart",
    "training-mode": "wootz.passes.training.training_mode:TrainingMode",
    "verify": "wootz.passes.transforms.verify:Verify",
}
PIPELINES: dict[str, str] = {
    "training": "trainable-part,training-mode,attach-loss,build-gradients,apply-optimizer,legalize",
    "training-float16": "trainable-part,training-mode,attach-loss,mixed-precision,build-gradients,"
    "apply-optimizer{loss-scale=65536.0},legalize{target=onnx-cuda}",
    "distillation": "trainable-part,distill{share=0.5},training-mode,attach-loss{scale=0.5 plus=distillation},"
    "build-gradients{frozen=teacher/},apply-optimizer,legalize",
    "distillation-float16": "trainable-part,distill{share=0.5},training-mode,attach-loss{scale=0.5 plus=distillation},"
    "mixed-precision{frozen=teacher/},build-gradients{frozen=teacher/},apply-optimizer{loss-scale=65536.0},"
    "legalize{target=onnx-cuda}",
    "block-training": "teacher-student,training-mode,build-gradients{frozen=teacher/},apply-optimizer,legalize",
    "block-training-float16": "teacher-student,training-mode,mixed-precision{frozen=teacher/},"
    "build-gradients{frozen=teacher/},apply-optimizer{loss-scale=65536.0},legalize{target=onnx-cuda}",
    "float16": "to-float16",
}
"""Pipelines that have names. A name stands for its passes in the text of a pipeline, with options of any of them as
`training{apply-optimizer.momentum=0.9}`; what a run trains is made by those of training, too."""
ENTRY_POINT_GROUP = "wootz.passes"

PassClasses = Mapping[str, type[Pass]]


def pass_names(loaded: PassClasses | None = None) -> list[str]:
    """All passes: Wootz's, those of other packages, and those `loaded` from files."""
    return sorted({*PASSES, *_installed(), *(loaded or {})})


def pass_class(name: str, loaded: PassClasses | None = None) -> type[Pass]:
    """The class of the pass called `name`. Raises WootzError, naming the closest one."""
    if loaded and name in loaded:
        return loaded[name]
    if name in PASSES:
        module, _, class_name = PASSES[name].partition(":")
        found: type[Pass] = getattr(import_module(module), class_name)
        return found
    installed = _installed()
    if name not in installed:
        close = difflib.get_close_matches(name.lower(), pass_names(loaded), n=1)
        hint = f"did you mean {close[0]!r}?" if close else "wootz-opt --list-passes shows them all"
        if name in PIPELINES:
            hint = f"it is a pipeline, --pass-pipeline={name}"
        raise WootzError(f"no pass named {name!r}: {hint}")
    point = installed[name]
    try:
        return _checked(point.load(), f"entry point {point.value}")
    except (ImportError, AttributeError) as error:
        raise WootzError(f"pass {name!r} of {point.value} can't be loaded: {error}") from error


def load_passes(path: Path) -> dict[str, type[Pass]]:
    """The passes that a Python file defines, by name. Raises InputError when there are none."""
    if not path.is_file():
        raise InputError("no such file", path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError("not a Python file", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's file does
        raise InputError(f"{type(error).__name__}: {error}", path) from error
    found = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Pass) and v is not Pass]
    own = {c.name: _checked(c, str(path)) for c in found if c.__module__ == module.__name__}
    if not own:
        raise InputError("defines no pass (a subclass of wootz.Pass)", path)
    return own


def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def _checked(candidate: object, where: str) -> type[Pass]:
    if not (isinstance(candidate, type) and issubclass(candidate, Pass) and hasattr(candidate, "name")):
        raise WootzError(f"{where}: not a pass (a subclass of wootz.Pass with a name)")
    return candidate
