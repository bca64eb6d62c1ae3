"""Other users of the machine reach the ports of an embedded Spark: it answers only who knows the run's own secret."""

from __future__ import annotations

import socket
import struct

from pyspark.sql import SparkSession

# An RPC in Spark's own framing. Its body names an endpoint and holds a Java object, which the driver would read.
OBJECT = bytes.fromhex("aced00057372000e6a6176612e7574696c2e44617465686a81014b59741903000078707708000000000000000078")
RPC_REQUEST, RPC_FAILURE = 3, 5


def ask(port: int, body: bytes) -> bytes:
    """Send an RPC to a port and return the first bytes of its answer."""
    message = struct.pack(">bqi", RPC_REQUEST, 1, len(body)) + body
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(struct.pack(">q", 8 + len(message)) + message)
        return connection.recv(1024)


def test_the_driver_reads_no_object_of_a_stranger(spark: None) -> None:
    session = SparkSession.getActiveSession()
    assert session is not None
    port = int(session.conf.get("spark.driver.port", "") or 0)
    answer = ask(port, b"\x00\x00" + struct.pack(">H", 8) + b"Endpoint" + OBJECT)
    assert answer[8] == RPC_FAILURE
    assert b"Expected SaslMessage" in answer
