"""The IR: an ONNX graph with a table of convolution modules beside it."""
