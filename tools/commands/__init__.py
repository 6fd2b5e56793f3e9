"""The commands of `wootz`, one a module."""
