#!/usr/bin/env bash
# The kernel's own ESP: transport mode with AES-GCM, set up by hand on two hosts, for both versions of IP.
. "$(dirname "$0")/../lib.sh"

A4=10.77.0.1 B4=10.77.0.2 A6=fd77::1 B6=fd77::2
AEAD="aead rfc4106(gcm(aes)) 0x$(printf '%040d' 7) 128"

# secure HOST OWN PEER SPI-IN SPI-OUT
secure() {
    ip -n "$1" -batch - <<TXT
xfrm state add src $3 dst $2 proto esp spi $4 mode transport reqid 1 replay-window 64 $AEAD
xfrm state add src $2 dst $3 proto esp spi $5 mode transport reqid 1 replay-window 64 $AEAD
xfrm policy add src $3 dst $2 dir in tmpl proto esp mode transport reqid 1
xfrm policy add src $2 dst $3 dir out tmpl proto esp mode transport reqid 1
TXT
}

lan_new
host_new a $A4/24 $A6/64
host_new b $B4/24 $B6/64
capture_start clear.pcap
ping_until 20 a $B4
capture_stop
[ "$(captured clear.pcap icmp)" -ge 2 ] || fail "the capture missed clear text"

secure a $A4 $B4 0x1001 0x2001
secure b $B4 $A4 0x2001 0x1001
secure a $A6 $B6 0x1002 0x2002
secure b $B6 $A6 0x2002 0x1002
capture_start esp.pcap
ping_all a $B4 10
ping_all a $B6 10
capture_stop
only_esp esp.pcap 40
[ -z "$(xfrm_errors a)$(xfrm_errors b)" ] || fail "xfrm_stat: $(xfrm_errors a) $(xfrm_errors b)"
say "kernel ESP: 20 pings over IPv4 and IPv6, $(captured esp.pcap esp) ESP packets, nothing in the clear"
