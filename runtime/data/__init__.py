"""Labelled images: how data sets are laid out, read, and kept for the batches that are made of them."""
