"""UDP sockets for datagrams between hosts."""

from __future__ import annotations

import socket


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def listening(address: str, port: int) -> socket.socket:
    """Also while the address is not there yet: a host may boot slowly. Raises OSError."""
    ours = socket.socket(family(address), socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        ours.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_FREEBIND", 15), 1)
        ours.bind((address, port))
    except OSError:
        ours.close()
        raise
    return ours
