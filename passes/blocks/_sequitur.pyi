import numpy as np
import numpy.typing as npt

def infer(symbols: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]: ...
