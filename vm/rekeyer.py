#!/usr/bin/env python3
"""rekeyer.py ROUNDS PEER...: asks the daemon of this host to rekey each peer's SAs, ROUNDS times; one process for all, since starting
a program takes longer than a rekey in an emulated machine. Prints how many child SAs the daemon has replaced since its start."""

import json
import socket
import sys
import time

CONTROL = "/run/control.sock"


def ask(request):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(CONTROL)
        s.sendall(request.encode())
        reply = b""
        while chunk := s.recv(65536):
            reply += chunk
    head, _, body = reply.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def rekey(peer):
    body = json.dumps({"action": "rekey", "peer": peer})
    # A rekey that is on already is refused, and that is well.
    ask(
        "POST /v1/command HTTP/1.0\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )


def replaced():
    status, body = ask("GET /v1/metrics HTTP/1.0\r\n\r\n")
    assert status == 200, status
    return int(sum(m["value"] for m in json.loads(body) if m["name"] == "warren_child_rekeys_total"))


for _ in range(int(sys.argv[1])):
    for peer in sys.argv[2:]:
        rekey(peer)
    time.sleep(0.3)
print(replaced())
