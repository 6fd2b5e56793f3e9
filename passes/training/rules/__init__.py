"""Gradient rules by family; `wootz.passes.training.gradient_rules` is the table of all of them."""
