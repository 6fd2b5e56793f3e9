"""Passes from a model to a model, one a module."""
