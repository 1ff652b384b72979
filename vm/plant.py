#!/usr/bin/env python3
"""Foreign SAs under the names that a host is about to use: whenever the kernel of one network namespace has a new SA whose
direction is asked for, the other's kernel gets one of the same destination and SPI, with a reqid that is nobody's.

    plant.py SEEN-NETNS PLANTED-NETNS DESTINATION [MOST]

SEEN-NETNS is where the peer runs: what is installed there, towards DESTINATION, is about to be installed in PLANTED-NETNS.
Ends after MOST, or when it is told to; prints a line for each."""

import ctypes
import os
import signal
import socket
import struct
import sys

seen, planted, destination = sys.argv[1], sys.argv[2], sys.argv[3]
most = int(sys.argv[4]) if len(sys.argv) > 4 else 1 << 30
NETLINK_XFRM, GROUP_SA = 6, 3
NEWSA, FLAGS = 0x10, 0x1 | 0x4 | 0x400  # NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE
libc = ctypes.CDLL(None, use_errno=True)


def netlink(netns, groups):
    with open(f"/run/netns/{netns}") as file:
        if libc.setns(file.fileno(), 0x40000000):
            sys.exit(f"setns: {os.strerror(ctypes.get_errno())}")
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM)
    sock.bind((0, groups))
    return sock


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
listen, plant = netlink(seen, 1 << (GROUP_SA - 1)), netlink(planted, 0)
wanted = socket.inet_aton(destination)
# struct xfrm_usersa_info: selector 56, id 24, source 16, limits 64, counters 32, then stats, seq, reqid, family, mode, window, flags.
SEL, ID, LFT = 56, 24, 64
count = 0
print("ready", flush=True)
while count < most:
    data = listen.recv(65536)
    while len(data) >= 16:
        length, kind, _, _, _ = struct.unpack_from("=IHHII", data)
        body, data = data[16:length], data[(length + 3) & ~3 :]
        if kind != NEWSA or body[SEL : SEL + 4] != wanted:
            continue
        # All as it is, keys included, but for the reqid.
        reqid_at = SEL + ID + 16 + LFT + 32 + 12 + 4
        body = body[:reqid_at] + struct.pack("=I", 7) + body[reqid_at + 4 :]
        plant.send(struct.pack("=IHHII", 16 + len(body), NEWSA, FLAGS, count + 1, 0) + body)
        answer = plant.recv(65536)
        error = -struct.unpack_from("=i", answer, 16)[0]
        count += 1
        spi = struct.unpack_from(">I", body, SEL + 16)[0]
        print(f"{count} 0x{spi:08x} {os.strerror(error) if error else 'planted'}", flush=True)
