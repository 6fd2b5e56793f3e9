"""Tuning blocks: which there are in a subspace, what they cost, and which are pre-trained together."""
