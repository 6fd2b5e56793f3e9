"""What a run hands over: networks as ONNX files, their description, further files of the best one."""
