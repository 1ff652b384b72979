# shellcheck shell=bash disable=SC2154 # bench/run.sh's variables
# wireguard-go, with the MTU that wg-quick would choose.

wireguard() {
    local root ns n=0 other keys=() home=$work/wireguard
    root=$(folder wireguard)
    mkdir -p "$home"/{tmp,var/run/wireguard}
    for _ in 0 1; do keys+=("$(chroot "$root" wg genkey)"); done
    for ns in "$a" "$b"; do
        (inside "$ns" "$root" "$home" wireguard-go -f "wgb$n") >"$work/wireguard$n.log" 2>&1 &
        pids+=($!)
        device "$ns" "wgb$n"
        await "wgb$n's socket" test -S "$home/var/run/wireguard/wgb$n.sock"
        other=$((1 - n))
        printf '[Interface]\nPrivateKey=%s\nListenPort=51820\n[Peer]\nPublicKey=%s\nAllowedIPs=10.96.0.0/24\nEndpoint=10.97.0.%d:51820\n' \
            "${keys[$n]}" "$(chroot "$root" wg pubkey <<<"${keys[$other]}")" $((other + 1)) >"$home/tmp/wg.conf"
        (inside "$ns" "$root" "$home" wg setconf "wgb$n" /tmp/wg.conf)
        ip -n "$ns" addr add "10.96.0.$((n + 1))/24" dev "wgb$n"
        ip -n "$ns" link set "wgb$n" mtu 1420 up
        n=$((n + 1))
    done
    measure wireguard-go 10.96.0.2
}
