# Two hosts of `warren lab`, what they say to each other, and the keys to it. Sourced by wireshark.sh.

sniffer=
lab=
# The addresses of h1 and h2, and the one that h1 may move to.
one=
two=
elsewhere=10.98.0.91

# A play's folder: `capture.pcap`, and Wireshark's profile with the tables of keys.
capture() { echo "$work/$1/capture.pcap"; }
profile() { echo "$work/$1/wireshark"; }

on() { "$warren" lab exec "$@"; }

wait_for() { # WHAT COMMAND…
    local what=$1 tries=150
    shift
    until "$@"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || die "$what does not come"
        sleep 0.1
    done
}

# A host that left the manifest's place for another one still speaks as the host that it is.
ping_between() { # SIZE…
    local size
    for size in "$@"; do
        on h1 ping -q -c 5 -i 0.05 -s "$size" -W 5 -I "$one" "$two" >/dev/null || die "no answer from $two"
        on h2 ping -q -c 5 -i 0.05 -s "$size" -W 5 -I "$two" "$one" >/dev/null || die "no answer from $one"
    done
}

# begin PLAY LAB-OPTIONS…: the lab is up, and h1's link is listened to.
begin() {
    play=$1
    shift
    mkdir -p "$(profile "$play")"
    touch "$(profile "$play")"/{ikev2_decryption_table,esp_sa}
    # One that is up already is somebody else's, and stays. Offload would show many ESP packets as one datagram, which
    # leaves the host as many.
    WARREN_OFFLOAD=off "$warren" lab up --hosts 2 "$@" >"$work/hosts"
    lab=up
    one=$(awk '$1 == "h1" { print $2 }' "$work/hosts")
    two=$(awk '$1 == "h2" { print $2 }' "$work/hosts")
    # That of the play before would be taken for this one's.
    rm -f "$work/tcpdump"
    # Neighbours are looked for in the clear. Without a function in between, `$!` is the capture itself.
    "$warren" lab exec h1 tcpdump -i eth0 --immediate-mode -U -Z root -s 0 -w "$(capture "$play")" \
        "(host $one or host $elsewhere) and host $two and not arp and not (icmp6 and (ip6[40] == 135 or ip6[40] == 136))" \
        2>"$work/tcpdump" &
    sniffer=$!
    wait_for "the capture" grep -qs 'listening on' "$work/tcpdump"
}

# The tunnel ends, then the capture, then the lab.
finish() {
    export_keys
    on h1 warren down "$two" >/dev/null
    # The peer's answer to the last delete changes nothing that could be waited for.
    sleep 0.5
    stop_capture
    lab_down
}

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

# export_keys [PLAY]: the tables hold what is alive now; together they cover every SA of the capture.
export_keys() {
    local to table
    to=$(profile "${1:-$play}")
    on h1 warren keys export --wireshark "$work/now" >/dev/null
    for table in ikev2_decryption_table esp_sa; do
        sort -u -o "$to/$table" "$to/$table" "$work/now/$table"
    done
}

status() { on h1 warren status --json; }

# SPIs of the IKE SA and of the child SA, one a line.
spis() { status | grep -oE '"spi_[a-z]+": ?"[0-9a-fx]+"' | sort; }

is_renewed() {
    spis >"$work/after" || return 1
    [ "$(wc -l <"$work/after")" = 4 ] && [ -z "$(comm -12 "$work/before" "$work/after")" ]
}

# renew [--reauth]: both SAs are replaced, by a rekey or by a new authentication.
renew() {
    export_keys
    spis >"$work/before"
    on h1 warren rekey "$two" "$@" >/dev/null
    wait_for "the new SAs" is_renewed
    export_keys
}

# At a host's door nothing of an exchange type comes in; `@th` begins at the UDP header.
shut() { # HOST EXCHANGE-TYPE
    on "$1" nft -f - <<NFT
table inet judge {
    chain door {
        type filter hook input priority 0
        udp dport 500 @th,208,8 $2 drop
    }
}
NFT
}

open() { on "$1" nft delete table inet judge; } # HOST
