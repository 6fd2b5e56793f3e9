"""The IR, the passes over it, and the data types that the frontend and the runtime share."""
