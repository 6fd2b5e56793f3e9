"""Reads `.caffemodel.h5` files: datasets `/data/LAYER/INDEX` (Caffe's `Net::ToHDF5`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wootz.frontend.caffe.caffemodel import Blob
from wootz.passes.arrays import LARGEST_DEFLATION
from wootz.passes.errors import InputError, WootzError, reading


def read_hdf5(path: Path) -> dict[str, list[Blob]]:
    """The blobs of each layer that has some, by the layer's name.

    Raises InputError for a file that is not Caffe's, WootzError when h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise WootzError(f"{path} needs h5py to be read: install wootz[hdf5]") from error
    layers: dict[str, list[Blob]] = {}
    with reading(path, "HDF5 weights of a Caffe network"), h5py.File(path, "r") as file:
        group = file.get("data")
        if not isinstance(group, h5py.Group):
            raise InputError("no group /data in it: not the weights of a Caffe network", path)
        for name in _layer_names(group, h5py):
            datasets = group[name]
            layers[name] = [Blob(_values(datasets, str(i), h5py), legacy=False) for i in range(len(datasets))]
    return layers


def _values(group: Any, name: str, h5py: Any) -> np.ndarray:
    """The numbers of a dataset. Raises ValueError where some aren't in the file: HDF5 would make them up."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"blob {name!r} lies outside of the file, or is missing")
    dataset = group[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "iuf":
        raise ValueError(f"blob {name!r} holds no numbers")
    if dataset.external is not None or dataset.is_virtual:
        raise ValueError(f"blob {name!r} lies outside of the file")
    if dataset.nbytes > LARGEST_DEFLATION * dataset.id.get_storage_size():
        raise ValueError(
            f"blob {name!r} of shape {dataset.shape} has {dataset.id.get_storage_size()} bytes in the file"
        )
    return np.asarray(dataset, np.float32)


def _layer_names(group: object, h5py: object) -> list[str]:
    """Groups that hold datasets; a layer's name may hold slashes, which HDF5 takes for further groups."""
    names: list[str] = []

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Group) and any(isinstance(d, h5py.Dataset) for d in item.values()):  # type: ignore[attr-defined]
            names.append(name)

    group.visititems(visit)  # type: ignore[attr-defined]
    return names
