"""One lowering a layer, by family; `table.LAYERS` says which is whose."""
