"""Executes models with ONNX Runtime: data, training, exploration, the run directory, the report."""
