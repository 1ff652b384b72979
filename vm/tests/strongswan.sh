#!/usr/bin/env bash
# Two strongSwans on the kernel's ESP: a trap for the subnet in transport mode, certificates, the first packet brings
# the SAs up. Shows that the peers run in the machine.
. "$(dirname "$0")/../lib.sh"

SUBNET=10.77.0.0/24 PKI=/vm/pki

configuration() {
    cat <<TXT
connections {
    mesh {
        version = 2
        remote_addrs = %any
        proposals = aes128-sha256-x25519
        local {
            auth = pubkey
            certs = host.pem
            id = $1
        }
        remote {
            auth = pubkey
            id = %any
        }
        children {
            mesh {
                mode = transport
                remote_ts = $SUBNET
                local_ts = dynamic
                esp_proposals = aes128gcm16
                start_action = trap
            }
        }
    }
}
TXT
}

peer_new() {
    host_new "$1" "$2/24"
    pki_leaf $PKI "$1" "$2"
    strongswan_start "$1"
    strongswan_certificates "$1" $PKI "$1"
    configuration "$2" | strongswan_load "$1"
}

has_trap() { ip -n "$1" xfrm policy list nosock dir out | grep -q "dst $SUBNET"; }

lan_new
pki_ca $PKI
peer_new a 10.77.0.1
peer_new b 10.77.0.2
wait_for 20 "a's trap" has_trap a
wait_for 20 "b's trap" has_trap b

capture_start swan.pcap
ping_until 60 a 10.77.0.2
ping_all a 10.77.0.2 10
ping_all b 10.77.0.1 10
capture_stop
only_esp swan.pcap 40
on a swanctl --list-sas
states=$(ip -n a xfrm state | grep -c 'proto esp')
[ "$states" = 2 ] || fail "$states SAs on a"
say "strongSwan: trap, transport mode, $(captured swan.pcap esp) ESP packets, nothing in the clear"
strongswan_stop a
strongswan_stop b
