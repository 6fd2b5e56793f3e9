"""Reads what users write into the types of wootz.passes."""
