"""Files in the form of checkpoints, written by hand."""

import json
import struct


def raw(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data
