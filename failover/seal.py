"""Datagrams that only those can have written who have the cluster's ZooKeeper credentials.

    32 bytes of HMAC-SHA256, then the body; the key is made from the credentials, a purpose and the cluster's name

Nothing in them is secret. One that is sent again has the right hash again: who hears it must know what is new.
"""

from __future__ import annotations

import hmac

_HASH = "sha256"
_TAG = 32


class Seal:
    def __init__(self, key: bytes) -> None:
        self.key = key

    @classmethod
    def of(cls, credentials: str, purpose: str, cluster: str) -> Seal:
        return cls(hmac.digest(credentials.encode(), f"failover {purpose} {cluster}".encode(), _HASH))

    def close(self, body: bytes) -> bytes:
        return hmac.digest(self.key, body, _HASH) + body

    def open(self, data: bytes) -> bytes | None:
        """The body; None when the hash is not that of this key."""
        tag, body = data[:_TAG], data[_TAG:]
        return body if hmac.compare_digest(tag, hmac.digest(self.key, body, _HASH)) else None
