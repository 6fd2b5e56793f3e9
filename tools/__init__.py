"""The command lines wootz and wootz-opt."""
