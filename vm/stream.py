#!/usr/bin/env python3
"""Numbered UDP datagrams to some hosts at a steady rate, and the same from them: what arrives is counted by number.

    stream.py RATE SECONDS OWN PEER...

After SECONDS, or when it is told to end (SIGTERM), nothing more is sent; what is under way is waited for; then one line
per peer says `peer sent received` (received: different numbers of that peer's), and the first numbers that are missing."""

import select
import signal
import socket
import sys
import time

PORT = 7009
UNDER_WAY = 3.0

rate, seconds, own, peers = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4:]
sock = socket.socket(socket.AF_INET6 if ":" in own else socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
sock.bind((own, PORT))
sock.setblocking(False)
end = time.monotonic() + seconds
sent, received = dict.fromkeys(peers, 0), {peer: set() for peer in peers}


def stop(*_):
    global end
    end = 0


def take():
    try:
        while True:
            data, source = sock.recvfrom(64)
            received[source[0]].add(int(data))
    except BlockingIOError:
        pass


signal.signal(signal.SIGTERM, stop)
# Nobody's numbers count before everybody listens.
while not all(received.values()):
    for peer in peers:
        try:
            sock.sendto(b"-1", (peer, PORT))
        except OSError:
            pass
    select.select([sock], [], [], 0.1)
    take()
for peer in peers:
    sock.sendto(b"-1", (peer, PORT))
    received[peer].discard(-1)
next_at = time.monotonic()
drained_at = None
while drained_at is None or time.monotonic() < drained_at:
    now = time.monotonic()
    if now >= end and drained_at is None:
        drained_at = now + UNDER_WAY
    if drained_at is None and now >= next_at:
        # After a stall it goes on at its rate: no burst makes up for it.
        next_at = max(next_at + 1 / rate, now)
        for peer in peers:
            try:
                sock.sendto(b"%d" % sent[peer], (peer, PORT))
            except OSError:
                pass
            sent[peer] += 1
    select.select([sock], [], [], 0.05 if drained_at else max(0, min(next_at - time.monotonic(), 0.05)))
    take()
for peer in peers:
    received[peer].discard(-1)
    missing = sorted(set(range(max(received[peer], default=-1) + 1)) - received[peer])
    print(peer, sent[peer], len(received[peer]), "missing:" if missing else "", *missing[:20], flush=True)
