# What two hosts do, and which exchanges must have been seen then. Sourced by wireshark.sh.

PLAYS=(certificates tunnel hybrid retries childless moved ipv6)

# Exchanges, as filters.
INIT='isakmp.exchangetype == 34'
AUTH='isakmp.exchangetype == 35'
CREATE='isakmp.exchangetype == 36'
INFORMATIONAL='isakmp.exchangetype == 37'
INTERMEDIATE='isakmp.exchangetype == 43'
FOLLOWUP='isakmp.exchangetype == 44'
REQUEST='isakmp.flag_r == 0'
RESPONSE='isakmp.flag_r == 1'

# payloads TYPE…: all of them are in the message, those inside SK or SKF included.
payloads() {
    local type filter=
    for type in "$@"; do filter+=" and isakmp.typepayload == $type"; done
    echo "$filter"
}
SA=33 KE=34 IDI=35 IDR=36 CERT=37 PROOF=39 NONCE=40 DELETE=42 TS=44 SKF=53

notify() { echo " and isakmp.notify.msgtype == $1"; }

manifest() { # LINES…
    { echo "ipsec_subnets: [10.98.0.0/24]"; printf '%s\n' "$@"; } >"$work/manifest.yml"
}
PSK='psk: a pre-shared key for the judge'

# Both SAs were replaced, and the tunnel has come to its end.
expect_life() {
    some "IKE_SA_INIT with SA, KE and nonce" 2 "$INIT$(payloads $SA $KE $NONCE)"
    some "CREATE_CHILD_SA for a child SA" 2 "$CREATE$(payloads $NONCE $TS)"
    some "CREATE_CHILD_SA for an IKE SA" 2 "$CREATE$(payloads $SA $NONCE $KE) and not isakmp.typepayload == $TS"
    some "INFORMATIONAL with a delete" 3 "$INFORMATIONAL$(payloads $DELETE)"
    some "ping in ESP, its ICV right" 30 '(icmp or icmpv6) and esp.icv_good == 1'
}

play_certificates() {
    begin certificates
    ping_between 56
    renew
    ping_between 1200
    renew --reauth
    ping_between 56
    finish
    verdict certificates "defaults with certificates"
    expect_life
    some "IKE_AUTH in fragments (RFC 7383)" 8 "$AUTH$(payloads $SKF)"
    some "IKE_AUTH, the initiator's identity and certificate" 2 "$AUTH$(payloads $IDI $CERT $PROOF $TS)"
    some "IKE_AUTH, the responder's identity and certificate" 2 "$AUTH and $RESPONSE$(payloads $IDR $CERT $PROOF $TS)"
    some "reauthentication: a second IKE_SA_INIT" 2 "$INIT and $REQUEST"
}

play_tunnel() {
    manifest "$PSK" "mode: tunnel" "force_udp_encapsulation: true" "dpddelay: 1" \
        "ike_proposals: aes256-sha384-ecp384" "esp_proposals: aes256-sha256-ecp384"
    begin tunnel -m "$work/manifest.yml"
    ping_between 56
    renew
    ping_between 56 1200
    # Silence, until somebody asks.
    sleep 2.5
    finish
    verdict tunnel "a pre-shared key, tunnel mode, ESP in UDP"
    expect_life
    some "IKE_AUTH with a pre-shared key" 2 "$AUTH$(payloads $PROOF $TS) and isakmp.auth.method == 2"
    some "liveness check" 2 "$INFORMATIONAL and isakmp.enc.decrypted and not isakmp.typepayload == $DELETE"
}

# The keys of IKE_INTERMEDIATE are not those of what follows (RFC 9242 3.3.1), and Wireshark takes one set for an
# IKE SA: these messages are judged by themselves, with the keys of their time.
play_hybrid() {
    manifest "$PSK" "ppk: another secret that no quantum computer finds" "ppk_id: judge-2026" \
        "ike_proposals: aes256-sha384-ecp384-ke1_mlkem768" "esp_proposals: aes256-sha256-ecp384-ke1_mlkem768"
    begin hybrid -m "$work/manifest.yml"
    shut h2 43
    on h1 warren up "$two" >/dev/null
    mkdir -p "$(profile intermediate)"
    touch "$(profile intermediate)"/{ikev2_decryption_table,esp_sa}
    wait_for "a key for IKE_INTERMEDIATE" has_intermediate_key
    open h2
    ping_between 56
    renew
    ping_between 56 1200
    finish
    apart "$INTERMEDIATE"
    verdict intermediate "ML-KEM, IKE_INTERMEDIATE"
    some "IKE_INTERMEDIATE with a key exchange, in fragments (RFC 9242, 7383)" 1 "$INTERMEDIATE and $REQUEST$(payloads $KE $SKF)"
    some "IKE_INTERMEDIATE, the answer" 1 "$INTERMEDIATE and $RESPONSE$(payloads $KE)"
    verdict hybrid "ML-KEM and a post-quantum pre-shared key, the rest"
    expect_life
    some "IKE_SA_INIT with INTERMEDIATE_EXCHANGE_SUPPORTED (RFC 9242)" 2 "$INIT$(notify 16438)"
    some "IKE_SA_INIT with USE_PPK (RFC 8784)" 2 "$INIT$(notify 16435)"
    some "IKE_AUTH with PPK_IDENTITY (RFC 8784)" 2 "$AUTH$(notify 16436)"
    some "CREATE_CHILD_SA with ADDITIONAL_KEY_EXCHANGE (RFC 9370)" 2 "$CREATE$(notify 16441)"
    some "IKE_FOLLOWUP_KE (RFC 9370)" 4 "$FOLLOWUP$(payloads $KE)"
}

has_intermediate_key() {
    export_keys intermediate
    [ -s "$(profile intermediate)/ikev2_decryption_table" ]
}

# apart FILTER: what it fits goes from the hybrid play's capture to one of its own.
apart() {
    local whole=$work/whole.pcap
    mv "$(capture hybrid)" "$whole"
    tshark -n -r "$whole" -F pcap -Y "$1" -w "$(capture intermediate)" 2>/dev/null
    tshark -n -r "$whole" -F pcap -Y "not $1" -w "$(capture hybrid)" 2>/dev/null
}

# The group of h1's first choice is not h2's; and handshakes that h2 never sees the end of make it ask for a cookie.
play_retries() {
    local n
    manifest "$PSK" "ike_proposals: aes256-sha384-ecp384"
    begin retries -m "$work/manifest.yml"
    manifest "$PSK" "ike_proposals: aes256-sha384-x25519-ecp384"
    on h1 warren reload >/dev/null
    shut h2 35
    for n in 1 2 3 4 5; do
        on h1 warren restart "$two" >/dev/null
        sleep 0.3
        export_keys
    done
    open h2
    ping_between 56
    finish
    verdict retries "cookies, another key exchange"
    some "IKE_SA_INIT refused with INVALID_KE_PAYLOAD" 1 "$INIT and $RESPONSE$(notify 17)"
    some "IKE_SA_INIT again, with the group that was asked for" 1 "$INIT and $REQUEST and isakmp.key_exchange.dh_group == 20"
    some "IKE_SA_INIT answered with COOKIE" 1 "$INIT and $RESPONSE$(notify 16390)"
    some "IKE_SA_INIT again, with the cookie" 1 "$INIT and $REQUEST$(notify 16390)"
    some "IKE_AUTH after all that" 1 "$AUTH and $RESPONSE$(payloads $PROOF $TS)"
}

play_childless() {
    manifest "$PSK" "esp_proposals: aes128gcm16-ecp256" "peers:" \
        "- {address: 10.98.0.1, childless: force}" "- {address: 10.98.0.2, childless: force}"
    begin childless -m "$work/manifest.yml"
    ping_between 56
    finish
    verdict childless "childless IKE_AUTH (RFC 6023)"
    some "IKE_SA_INIT with CHILDLESS_IKEV2_SUPPORTED" 1 "$INIT$(notify 16418)"
    some "IKE_AUTH without a child SA" 2 "$AUTH$(payloads $PROOF) and not isakmp.typepayload == $SA"
    some "CREATE_CHILD_SA for the first child SA" 2 "$CREATE$(payloads $SA $NONCE $KE $TS)"
}

# The address by which the fleet knows h1 leaves the wire, not the host.
play_moved() {
    manifest "$PSK" "mode: tunnel" "mobike: true"
    begin moved -m "$work/manifest.yml"
    ping_between 56
    export_keys
    on h1 ip address del "$one/24" dev eth0
    on h1 ip address add "$elsewhere/24" dev eth0
    wait_for "the tunnel at another address" is_at "$elsewhere"
    on h1 ip address add "$one/32" dev lo
    ping_between 56
    finish
    verdict moved "MOBIKE (RFC 4555)"
    some "IKE_AUTH with MOBIKE_SUPPORTED" 2 "$AUTH$(notify 16396)"
    some "INFORMATIONAL with UPDATE_SA_ADDRESSES" 1 "$INFORMATIONAL$(notify 16400)"
    some "INFORMATIONAL with COOKIE2, from the new address and to it" 2 "$INFORMATIONAL$(notify 16401) and ip.addr == $elsewhere"
    some "ESP from the new address and to it" 20 "esp and ip.addr == $elsewhere"
}

is_at() { status | grep -qE "\"local\": ?\"$1:"; }

play_ipv6() {
    begin ipv6 --family 6
    ping_between 56
    renew
    ping_between 56 1200
    finish
    verdict ipv6 "IPv6, defaults with certificates"
    expect_life
    some "IKE_AUTH in fragments (RFC 7383), in IPv6" 4 "ipv6 and $AUTH$(payloads $SKF)"
}
