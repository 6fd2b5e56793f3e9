import pytest

from wootz.passes.errors import WootzError
from wootz.passes.plan.transform import InputTransform


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no JSON", "Expecting value"),
        ("[1]", r"there is \[1\]$"),
        ("3", "there is 3$"),
        ('{"scale": ["a"]}', "scale has to have numbers"),
        ('{"sclae": [1]}', "sclae"),
    ],
)
def test_metadata_that_is_no_input_transform_is_refused(text: str, reason: str) -> None:
    with pytest.raises(WootzError, match=f"metadata 'wootz.input' is no input transform: .*{reason}"):
        InputTransform.from_json(text)
