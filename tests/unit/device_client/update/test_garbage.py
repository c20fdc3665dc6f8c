"""Whatever comes from outside ends in a refusal with a code, never in another exception."""

import json
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.protocol import limits
from broker.protocol.names import DeviceId
from device_client.update.assignment import authentic
from device_client.update.codes import UpdateRefused
from device_client.update.metadata import Root, Snapshot, Targets, Timestamp, parse
from device_client.update.trusted import Trusted
from tests.support.update_repository import NOW, MadeRepository

MADE = MadeRepository()
TRUSTED = Trusted(MADE.first_root, NOW)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
BYTES = st.binary(max_size=400) | VALUES.map(lambda value: json.dumps(value).encode())


@given(data=BYTES, kind=st.sampled_from([Root, Timestamp, Snapshot, Targets]))
@settings(max_examples=300)
def test_metadata(data: bytes, kind: Any) -> None:
    with suppress(UpdateRefused):
        parse(data, kind, limits.MAX_METADATA)


@given(data=BYTES)
@settings(max_examples=300)
def test_assignments(data: bytes) -> None:
    with suppress(UpdateRefused):
        authentic(data, TRUSTED, DeviceId("meter-1"), NOW)


@given(data=st.data(), value=VALUES)
@settings(max_examples=300)
def test_whole_metadata_with_one_odd_value(data: st.DataObject, value: Any) -> None:
    name = data.draw(st.sampled_from(sorted(MADE.files)))
    whole = json.loads(MADE.files[name])
    holder: Any = whole
    while isinstance(holder, dict | list) and holder:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(holder[key], dict | list) or data.draw(st.booleans()):
            holder[key] = value
            break
        holder = holder[key]
    kind: dict[str, Any] = {
        "root": Root,
        "timestamp": Timestamp,
        "snapshot": Snapshot,
        "targets": Targets,
    }
    with suppress(UpdateRefused):
        parse(json.dumps(whole).encode(), kind[name.split(".")[-2]], limits.MAX_METADATA)
