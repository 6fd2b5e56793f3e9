"""fix-sizes: gives the open extents of a network's inputs a size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wootz.passes.base import Pass, PassResult, option
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model, Tensor, Variable, tensor_shape
from wootz.passes.ir.shapes import annotate_shapes
from wootz.passes.transforms.fold_constants import FoldConstants


@dataclass(frozen=True)
class FixSizes(Pass):
    """Gives the open extents of the inputs a size, all but the first, which is the batch.

    1. `size` are those of an input in their order: height and width of images, whatever else is known of its shape. An
       input that leaves none open stays. `inputs` names those that are meant; by default all.
    2. What has the same symbol as an extent that gets a size gets the same size, other inputs too.
    3. All shapes are inferred anew, and what is computed from them is folded (`fold-constants{weights=false}`).

    Refuses inputs that leave another number of extents open than `size` has, two sizes for one symbol, inputs of
    which nothing is known, sizes that the network contradicts, and to find nothing open. Afterwards the network no
    longer takes other sizes.
    """

    name = "fix-sizes"
    requires = "the size: fix-sizes{size=HEIGHT,WIDTH}"
    size: tuple[int, ...] = option((), "the extents, in order: height and width of images")
    inputs: tuple[str, ...] = option((), "the inputs that are meant; by default all that leave extents open")

    def apply(self, model: Model) -> PassResult:
        if not self.size or min(self.size) < 1:
            raise self.refuse(f"size is {list(self.size)}: the extents, one or more, each at least 1, as size=64,64")
        result = model.copy()
        sizes = self._sizes(result)
        for tensor in result.graph.tensors().values():
            shape = tensor_shape(tensor)
            if isinstance(tensor, Variable) and shape is not None:
                tensor.shape = [sizes.get(extent, extent) if isinstance(extent, str) else extent for extent in shape]
        try:
            annotate_shapes(result.graph)
        except WootzError as error:
            raise self.refuse(f"the network can't have the size {list(self.size)}: {error}") from error
        folded = FoldConstants(weights=False).apply(result).model
        return PassResult(folded, modified=True, statistics={"fixed": len(sizes)})

    def _sizes(self, model: Model) -> Mapping[str, int]:
        """The size of each symbol."""
        given = {t.name: t for t in model.graph.inputs}
        if unknown := [name for name in self.inputs if name not in given]:
            raise self.refuse(f"no input named {unknown[0]!r} (inputs: {', '.join(given)})")
        chosen = [given[name] for name in self.inputs] or [t for t in given.values() if _open(t) != ()]
        sizes: dict[str, int] = {}
        for tensor in chosen:
            symbols = _open(tensor)
            if symbols is None:
                raise self.refuse("nothing is known of its shape: export the network with it", tensor.name)
            if len(symbols) != len(self.size):
                raise self.refuse(
                    f"it leaves {len(symbols)} extents open besides the batch, {_described(tensor)}, and size has "
                    f"{len(self.size)}; inputs=NAME,… says which inputs are meant",
                    tensor.name,
                )
            for symbol, extent in zip(symbols, self.size, strict=True):
                if sizes.setdefault(symbol, extent) != extent:
                    raise self.refuse(f"{symbol} would be {sizes[symbol]} and {extent}", tensor.name)
        if not sizes:
            raise self.refuse(
                f"no input leaves an extent open besides the batch: {', '.join(map(_described, given.values()))}"
            )
        return sizes


def _open(tensor: Tensor) -> tuple[str, ...] | None:
    """The symbols of an input's extents behind the first; None where its shape isn't known."""
    shape = tensor_shape(tensor)
    return None if shape is None else tuple(extent for extent in shape[1:] if isinstance(extent, str))


def _described(tensor: Tensor) -> str:
    return f"{tensor.name} [{', '.join(map(str, tensor_shape(tensor) or ()))}]"
