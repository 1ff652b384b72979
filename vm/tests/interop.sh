#!/usr/bin/env bash
# Warren and strongSwan on the kernel's ESP, transport mode, certificates: each has a trap for the subnet and lets one
# host pass in the clear. Either side's first packet brings the SAs up, from nothing; then rekeys and deletes from both
# sides, under traffic.
. "$(dirname "$0")/../lib.sh"

W=10.77.0.1 S=10.77.0.2 P=10.77.0.9 SUBNET=10.77.0.0/24 PKI=/vm/pki MANIFEST=/vm/pki/warren.yml

manifest() {
    cat <<TXT
ipsec_subnets: [$SUBNET]
no_ipsec_subnets: [$P/32]
instance_certificate: file:w.pem
instance_private_key: file:w.key
ca_certificates: ['file:ca.pem']
TXT
}

configuration() {
    cat <<TXT
connections {
    mesh {
        version = 2
        remote_addrs = %any
        proposals = aes128-sha256-modp2048
        local {
            auth = pubkey
            certs = host.pem
            id = $S
        }
        remote {
            auth = pubkey
            id = %any
        }
        children {
            mesh {
                mode = transport
                local_ts = dynamic
                remote_ts = $SUBNET
                esp_proposals = aes128gcm16
                start_action = trap
            }
        }
    }
    exempt {
        children {
            exempt {
                mode = pass
                local_ts = 0.0.0.0/0
                remote_ts = $P/32
                start_action = trap
            }
        }
    }
}
TXT
}

both_up() {
    warren_start w $MANIFEST
    strongswan_start s
    strongswan_certificates s $PKI s
    configuration | strongswan_load s
    wait_for 20 "the traps" has_traps
}

has_traps() { has_trap w && has_trap s; }
has_trap() { ip -n "$1" xfrm policy list nosock dir out | grep -q "dst $SUBNET"; }

# Ends both, and sees that no SA is left.
both_end() {
    warren_flush w
    strongswan_stop s
    local host
    for host in w s; do
        [ -z "$(ip -n $host xfrm state)" ] || fail "$host keeps SAs: $(ip -n $host xfrm state)"
    done
    [ -z "$(ip -n w xfrm policy list nosock)" ] || fail "policies stay: $(ip -n w xfrm policy list nosock)"
}

spis() { ip -n "$1" xfrm state | grep -o 'spi 0x[0-9a-f]*' | sort; }

# One pair of SAs, the same on both, in transport mode.
one_pair() { [ "$(spis w | wc -l)" = 2 ] && [ "$(spis w)" = "$(spis s)" ]; }
is_up() { warren w status $S --json | grep -q '"state":"up"'; }
no_sas() { [ -z "$(spis w)$(spis s)" ]; }

settled() {
    wait_for 60 "one pair of SAs after $1" one_pair
    wait_for 10 "status: up" is_up
    [ "$(ip -n w xfrm state | grep -c 'mode transport')" = 2 ] || fail "not transport mode"
    ping_all w $S 5
    ping_all s $W 5
}

# Nothing but the passthrough host is reached in the clear, and it is.
judge() {
    local clear
    clear=$(tcpdump -n -r "$VM_OUT/$1" "not ($ALLOWED_ON_WIRE) and not host $P" 2>/dev/null)
    [ -z "$clear" ] || fail "in the clear: $(head -n 5 <<<"$clear")"
    [ "$(captured "$1" "esp and host $P")" = 0 ] || fail "ESP with the passthrough host"
    [ "$(captured "$1" "esp and host $W and host $S")" -ge 20 ] || fail "too little ESP"
    local host
    for host in $W $S; do
        [ "$(captured "$1" "icmp and host $host and host $P")" -ge 12 ] || fail "no clear packets of $host with $P"
    done
}

lan_new
host_new w $W/24
host_new s $S/24
host_new p $P/24
pki_ca $PKI
pki_leaf $PKI w $W
pki_leaf $PKI s $S
manifest >$MANIFEST

for first in 'w s' 's w'; do
    read -r from to <<<"$first"
    both_up
    capture_start "$from.pcap"
    no_sas || fail "SAs before the first packet"
    destination=$S
    [ "$from" = w ] || destination=$W
    ping_until 60 "$from" $destination
    settled "$from's first packet to $to"
    ping_all w $P 3
    ping_all s $P 3
    ping_all p $W 3
    ping_all p $S 3
    capture_stop
    judge "$from.pcap"
    say "$from's first packet: up, $(captured "$from.pcap" esp) ESP packets, only $P in the clear"
    [ "$from" = s ] || both_end
done

# Rekeys, under traffic both ways.
errors="$(xfrm_errors w) $(xfrm_errors s)"
capture_start rekey.pcap
streams_start 20 w=$W s=$S
changed() { one_pair && [ "$(spis w)" != "$before" ]; }
for round in 1 2 3; do
    for step in "warren w rekey $S" 'on s swanctl --rekey --child mesh' 'on s swanctl --rekey --ike mesh'; do
        before=$(spis w)
        $step >/dev/null
        if [[ $step = *--ike* ]]; then pause 2; else wait_for 60 "SAs after: $step" changed; fi
    done
done
streams_end
capture_stop
only_esp rekey.pcap 200
[ "$(xfrm_errors w) $(xfrm_errors s)" = "$errors" ] || fail "xfrm_stat: $(xfrm_errors w) $(xfrm_errors s), before $errors"
settled "rekeys"
say "rekeys from both sides: $STREAMED packets, 0 lost"

# Deletes: the other side lets go, and the next packet builds anew.
for level in ike child; do
    on s swanctl --terminate --$level mesh >/dev/null
    wait_for 60 "nothing left after the peer's delete of its $level SA" no_sas
    ping_until 60 w $S
    settled "the peer's delete of its $level SA"
done
warren w down $S >/dev/null
wait_for 60 "nothing left after down" no_sas
warren w up $S >/dev/null
settled "up"
both_end
say "deletes from both sides: gone on both, built anew"
