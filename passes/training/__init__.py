"""Passes that make training graphs: losses, gradients, optimizers, legalisation for a target."""
