"""What was trained, kept under the key of its recipe: one folder for many runs, processes and machines."""

from wootz.runtime.store.entry import Checkpoint, Entry
from wootz.runtime.store.lease import Lease
from wootz.runtime.store.store import Store

__all__ = ["Checkpoint", "Entry", "Lease", "Store"]
