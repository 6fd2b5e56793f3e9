import numpy as np
import onnx

class LazyValues(np.ndarray):
    def __init__(self, tensor: onnx.TensorProto) -> None: ...
