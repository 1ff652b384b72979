#!/usr/bin/env bash
# tshark reads what two real daemons say to each other, and decrypts it with `warren keys export`.
# Ends 0 if no frame is malformed, nothing in one unknown, and every IKE and ESP packet is decrypted.
# usage: wireshark.sh [WARREN]
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

warren=${1:-target/release/warren}
work=$(mktemp -d)
capture=$work/capture.pcap
profile=$work/wireshark
sniffer=
lab=

die() { echo "wireshark: $*" >&2; exit 1; }

# A job in the background ignores an interrupt; on TERM tcpdump ends its file well too.
stop_capture() {
    [ -n "$sniffer" ] || return 0
    kill "$sniffer" 2>/dev/null || true
    wait "$sniffer" || true
    sniffer=
}

lab_down() {
    [ -n "$lab" ] || return 0
    lab=
    "$warren" lab down >/dev/null
}

cleanup() {
    local status=$?
    trap - EXIT
    # A run that failed shows what was seen.
    if [ "$status" != 0 ] && [ -s "$work/frames" ]; then cat "$work/frames" >&2; fi
    stop_capture
    lab_down || status=1
    rm -rf "$work"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

on() { "$warren" lab exec "$@"; }

ping_from() { # HOST ADDRESS SIZE
    on "$1" ping -q -c 5 -i 0.05 -s "$3" -W 5 "$2" >/dev/null || die "no answer to $1 from $2"
}

wait_for() { # WHAT COMMAND…
    local what=$1 tries=100
    shift
    until "$@"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || die "$what does not come"
        sleep 0.1
    done
}

# SPIs of the IKE SA and of the child SA, one a line.
spis() { on h1 warren status --json | grep -oE '"spi_[a-z]+": ?"[0-9a-fx]+"' | sort; }

renewed() {
    spis >"$work/after" || return 1
    [ "$(wc -l <"$work/after")" = 4 ] && [ -z "$(comm -12 "$work/before" "$work/after")" ]
}

# The tables hold what is alive now; together they cover every SA of the capture.
export_keys() {
    on h1 warren keys export --wireshark "$work/now" >/dev/null
    for table in ikev2_decryption_table esp_sa; do
        cat "$work/now/$table" >>"$profile/$table"
        sort -u -o "$profile/$table" "$profile/$table"
    done
}

# Two hosts: pings both ways, a rekey of both SAs, pings, the end of the tunnel.
record() { # LAB OPTIONS
    local one two
    rm -rf "$profile" "$capture"
    mkdir -p "$profile"
    touch "$profile/ikev2_decryption_table" "$profile/esp_sa"
    # One that is up already is somebody else's, and stays. Offload would show many ESP packets as one datagram, which
    # leaves the host as many.
    WARREN_OFFLOAD=off "$warren" lab up --hosts 2 "$@" >"$work/hosts"
    lab=up
    one=$(awk '$1 == "h1" { print $2 }' "$work/hosts")
    two=$(awk '$1 == "h2" { print $2 }' "$work/hosts")
    # Without a function in between, `$!` is the capture itself.
    "$warren" lab exec h1 tcpdump -i eth0 -U -Z root -s 0 -w "$capture" \
        "host $one and host $two and not arp" 2>"$work/tcpdump" &
    sniffer=$!
    wait_for "the capture" grep -qs 'listening on' "$work/tcpdump"
    ping_from h1 "$two" 56
    ping_from h2 "$one" 1200
    export_keys
    spis >"$work/before"
    on h1 warren rekey "$two" >/dev/null
    wait_for "the rekey" renewed
    export_keys
    ping_from h1 "$two" 56
    on h1 warren down "$two" >/dev/null
    # The peer's answer to the last delete changes nothing that could be waited for.
    sleep 1
    stop_capture
    lab_down
}

# A configuration of its own, so that none of this machine's counts.
judge() {
    XDG_CONFIG_HOME=$work HOME=$work tshark -n -r "$capture" -o ip.check_checksum:TRUE \
        -o esp.enable_encryption_decode:TRUE -o esp.enable_authentication_check:TRUE \
        "$@" 2>>"$work/stderr"
}

none() { # WHAT FILTER
    judge -Y "$2" >"$work/found"
    [ ! -s "$work/found" ] || { cat "$work/found" >&2; die "frames that are $1"; }
}

some() { # WHAT AT-LEAST FILTER
    local found
    found=$(judge -Y "$3" | wc -l)
    [ "$found" -ge "$2" ] || die "$1: $found frames, not $2"
    printf '%5d  %s\n' "$found" "$1"
}

verdict() { # WHAT
    : >"$work/stderr"
    judge -T fields -e frame.number -e _ws.col.Protocol -e _ws.col.Info >"$work/frames"
    judge -O isakmp,esp >"$work/text"
    echo "$1: $(wc -l <"$work/frames") frames"

    none "malformed" '_ws.malformed'
    none "complained about" '_ws.expert.severity >= "Warning"'
    # A long IKE_AUTH goes in fragments of IP; what they are shows with the last one.
    none "neither IKE nor ESP" 'not isakmp and not esp and not ip.flags.mf == 1'
    none "IKE and not decrypted" 'isakmp.typepayload == 46 and not isakmp.enc.decrypted'
    none "ESP and not decrypted" 'esp and not esp.decrypted_data'
    none "ESP with a wrong ICV" 'esp.icv_bad == 1'
    # Two notifies of the private range are Warren's own: another would be one header more.
    local private='Private Use - STATUS TYPES'
    [ "$(grep -c "Payload: Notify (41) - $private\$" "$work/text")" = "$(grep -cE "$private \(4738[78]\)" "$work/text")" ] ||
        die "a notify of the private range that is not Warren's"
    # SUPPORTED_AUTH_METHODS (RFC 9593) is younger than Wireshark 4.0.
    local nameless='RESERVED TO IANA - STATUS TYPES'
    [ "$(grep -c "Payload: Notify (41) - $nameless\$" "$work/text")" = "$(grep -c "$nameless (16443)" "$work/text")" ] ||
        die "a notify that tshark has no name for"
    if grep -vE "$private( \(4738[78]\))?\$|$nameless( \(16443\))?\$" "$work/text" |
        grep -iE 'unknown|unassigned|to iana|private use|\[incorrect|\[invalid' >&2; then
        die "tshark does not know this, or finds it wrong"
    fi
    if grep 'Integrity Checksum Data' "$work/text" | grep -v '\[correct\]' >&2; then
        die "IKE messages with a wrong ICV"
    fi
    # Of tables that it cannot read tshark tells on standard error only.
    if grep -v '^Running as user' "$work/stderr" >&2; then die "tshark complains"; fi

    local auth='isakmp.exchangetype == 35 and isakmp.typepayload == 39 and isakmp.typepayload == 44'
    local create='isakmp.exchangetype == 36 and isakmp.typepayload == 40'
    some "IKE_SA_INIT with SA, KE and nonce" 2 'isakmp.exchangetype == 34 and isakmp.typepayload == 33 and isakmp.typepayload == 34 and isakmp.typepayload == 40'
    some "IKE_AUTH with the initiator's identity, decrypted" 1 "$auth and isakmp.typepayload == 35"
    some "IKE_AUTH with the responder's identity, decrypted" 1 "$auth and isakmp.typepayload == 36"
    some "CREATE_CHILD_SA for a child SA, decrypted" 2 "$create and isakmp.typepayload == 44"
    some "CREATE_CHILD_SA for an IKE SA, decrypted" 2 "$create and isakmp.typepayload == 34 and not isakmp.typepayload == 44"
    some "INFORMATIONAL with a delete, decrypted" 3 'isakmp.exchangetype == 37 and isakmp.typepayload == 42'
    some "ping in ESP, decrypted, its ICV right" 30 'esp and icmp and esp.icv_good == 1'
    : >"$work/frames"
}

command -v tshark >/dev/null || die "install tshark: apt-get install tshark"
command -v tcpdump >/dev/null || die "install tcpdump: apt-get install tcpdump"
[ "$(id -u)" = 0 ] || die "network namespaces need root"
[ -x "$warren" ] || die "no $warren; ./x build makes it"

cat >"$work/tunnel.yml" <<'YML'
ipsec:
  ipsec_subnets: [10.98.0.0/24]
  psk: a pre-shared key for the judge
  mode: tunnel
  force_udp_encapsulation: true
  ike_proposals: aes256-sha384-ecp384
  esp_proposals: aes256-sha256-ecp384
YML

tshark --version 2>/dev/null | head -n 1
record
verdict "defaults with certificates"
record -m "$work/tunnel.yml"
verdict "a pre-shared key, tunnel mode, ESP in UDP"
echo "no frame malformed, nothing unknown, all decrypted"
