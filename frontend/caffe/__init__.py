"""Caffe prototxt, caffemodel and solver files."""
