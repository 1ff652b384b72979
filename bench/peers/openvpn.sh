# shellcheck shell=bash disable=SC2154 # bench/run.sh's variables
# OpenVPN, without its kernel module (DCO): UDP, AES-128-GCM.

openvpn() {
    local root ns n other role prints=() home=$work/openvpn
    root=$(folder openvpn)
    mkdir -p "$home"/{run,tmp}
    for n in 0 1; do
        (inside "$a" "$root" "$home" openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=bench$n" \
            -keyout "/tmp/$n.key" -out "/tmp/$n.pem") 2>"$work/openvpn-openssl.log"
        prints+=("$(chroot "$root" openssl x509 -noout -fingerprint -sha256 <"$home/tmp/$n.pem" | cut -d= -f2)")
    done
    n=0
    for ns in "$a" "$b"; do
        other=$((1 - n))
        role=(--tls-server --dh none)
        [ $n = 0 ] || role=(--tls-client)
        ip -n "$ns" tuntap add dev ovpnb mode tun
        ip -n "$ns" addr add "10.96.0.$((n + 1))/24" dev ovpnb
        ip -n "$ns" link set ovpnb up
        (inside "$ns" "$root" "$home" openvpn --dev ovpnb --dev-type tun --ifconfig-noexec --proto udp --local "10.97.0.$((n + 1))" \
            --remote "10.97.0.$((other + 1))" --topology subnet --ifconfig "10.96.0.$((n + 1))" 255.255.255.0 "${role[@]}" \
            --cert "/tmp/$n.pem" --key "/tmp/$n.key" --peer-fingerprint "${prints[$other]}" \
            --data-ciphers AES-128-GCM --disable-dco) >"$work/openvpn$n.log" 2>&1 &
        pids+=($!)
        n=$((n + 1))
    done
    measure openvpn 10.96.0.2
}
