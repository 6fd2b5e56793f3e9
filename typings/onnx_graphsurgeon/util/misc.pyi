from collections.abc import Iterable
from typing import Any

class SynchronizedList(list[Any]):
    def __init__(self, parent_obj: object, field_name: str, initial: Iterable[Any]) -> None: ...
