"""Data types that the frontend parses into and the runtime works from: plain frozen dataclasses."""
