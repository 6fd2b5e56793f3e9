"""The table of gradients: one rule an ONNX operator."""

from __future__ import annotations

from collections.abc import Sequence

from wootz.passes.analysis.class_scores import LAYOUT_OPERATORS
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

WEIGHT_OPERANDS: dict[str, Sequence[int]] = {
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
    "Concat": range(2**31),
}
"""The operands that are parameters where they are constant. A constant elsewhere (a bound, an axis, the mean that a
Sub takes from the image) is not trained, nor is one number in Add, Mul
and Concat without a parameter's name."""

ALSO_NUMBERS = frozenset({"Add", "Mul", "Concat"})
"""The operators of WEIGHT_OPERANDS that read single numbers which are no parameters."""

FIXED_OPERANDS: dict[str, tuple[int, ...]] = {"SoftmaxCrossEntropyLoss": (2,)}
"""The operands that are no parameters where they are constant, whatever else uses them: class weights."""

LIKE_WEIGHTS = frozenset({"Sub", "Div", "Sum"})
"""Operators that a network may write a bias or a scale with; before the first weight they bring images into range."""

SETTING_OPERANDS: dict[str, tuple[int, ...]] = {
    "BatchNormalization": (3, 4),
    "Clip": (1, 2),
    "Dropout": (1, 2),
    "Pad": (2,),
    "Resize": (1, 2),
    "SoftmaxCrossEntropyLoss": (2,),
}
"""The operands of real numbers that say how to compute; nobody trains them by a gradient."""

UNTRAINED_WEIGHTS: dict[str, tuple[int, ...]] = {
    "RNN": (1, 2, 3, 5),
    "GRU": (1, 2, 3, 5),
    "LSTM": (1, 2, 3, 5, 6, 7),
    "DequantizeLinear": (0,),
    "QLinearConv": (3, 8),
    "QLinearMatMul": (0, 3),
    "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1),
}
"""The operands that are weights where they are constant, of operators that have no gradient."""

PASSING_OPERATORS = LAYOUT_OPERATORS | {"Expand", "Slice"}
"""Operators through which a constant is still the parameter that it was."""
