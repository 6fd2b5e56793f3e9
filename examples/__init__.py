"""Networks, solvers and subspaces to start from; `digits` is what `wootz run` does without arguments."""
