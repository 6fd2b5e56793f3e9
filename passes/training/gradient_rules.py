"""The table of gradients: one rule an ONNX operator."""

from __future__ import annotations

from wootz.passes.training.rules.elementwise import ELEMENTWISE
from wootz.passes.training.rules.linear import LINEAR
from wootz.passes.training.rules.movement import MOVEMENT
from wootz.passes.training.rules.normalization import NORMALIZATION
from wootz.passes.training.rules.pooling import POOLING
from wootz.passes.training.rules.reduction import REDUCTION
from wootz.passes.training.rules.rule import Rule

RULES: dict[str, Rule] = ELEMENTWISE | REDUCTION | MOVEMENT | LINEAR | POOLING | NORMALIZATION

SEVERAL_RESULTS = frozenset({"Split"})
"""The operators whose rules take gradients of other results than the first, too."""

WITHOUT_GRADIENT = frozenset(
    {"ArgMax", "ArgMin", "Ceil", "Floor", "Round", "Sign", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"}
    | {"Not", "And", "Or", "Xor", "IsNaN", "IsInf", "NonZero", "Shape", "Size", "ConstantOfShape"}
    | {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli"}
)
"""Operators that are constant almost everywhere or give no real numbers: no gradient passes through them."""

WEIGHT_OPERANDS: dict[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "Einsum": (0, 1),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "PRelu": (1,),
    "Gather": (0,),
    "Add": (0, 1),
    "Mul": (0, 1),
}
"""The operands that are parameters where they are constant. A constant elsewhere (a bound, an axis, the mean that a
Sub takes from the image) is not trained, nor is a constant of one element in Add and Mul."""

FIXED_OPERANDS: dict[str, tuple[int, ...]] = {"SoftmaxCrossEntropyLoss": (2,)}
"""The operands that are no parameters where they are constant, whatever else uses them: class weights."""

LAYOUT_OPERATORS = frozenset(("Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast"))
"""Operators through which a constant is still the parameter that it was."""
