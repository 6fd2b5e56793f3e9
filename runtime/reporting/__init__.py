"""What is shown of a result: the page and its plots, tables of comparison, TensorBoard's events."""
