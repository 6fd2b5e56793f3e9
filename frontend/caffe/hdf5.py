"""Reads `.caffemodel.h5` files: datasets `/data/LAYER/INDEX` (Caffe's `Net::ToHDF5`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wootz.frontend.caffe.caffemodel import Blob
from wootz.passes.errors import InputError, WootzError


def read_hdf5(path: Path) -> dict[str, list[Blob]]:
    """The blobs of each layer that has some, by the layer's name.

    Raises InputError for a file that is not Caffe's, WootzError when h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise WootzError(f"{path} needs h5py to be read: install wootz[hdf5]") from error
    layers: dict[str, list[Blob]] = {}
    try:
        with h5py.File(path, "r") as file:
            group = file.get("data")
            if not isinstance(group, h5py.Group):
                raise InputError("no group /data in it: not the weights of a Caffe network", path)
            for name in _layer_names(group, h5py):
                datasets = group[name]
                blobs = [np.asarray(datasets[str(i)], np.float32) for i in range(len(datasets))]
                layers[name] = [Blob(values, legacy=False) for values in blobs]
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"can't be read as HDF5 weights: {error}", path) from error
    return layers


def _layer_names(group: object, h5py: object) -> list[str]:
    """Groups that hold datasets; a layer's name may hold slashes, which HDF5 takes for further groups."""
    names: list[str] = []

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Group) and any(isinstance(d, h5py.Dataset) for d in item.values()):  # type: ignore[attr-defined]
            names.append(name)

    group.visititems(visit)  # type: ignore[attr-defined]
    return names
