# shellcheck shell=bash disable=SC2154 # bench/run.sh's variables
# tinc 1.0 with its own defaults, AES-256-CBC and SHA-256, as it knows no AEAD. Its MTU is wireguard-go's, which fits the wire, and the
# path's is not discovered: until tinc has done that, larger packets go through its TCP connection.

tinc() {
    local root ns n home=$work/tinc
    root=$(folder tinc)
    mkdir -p "$home"/{etc/{0,1}/hosts,tmp}
    for n in 0 1; do
        printf '%s\n' "Name = bench$n" "ConnectTo = bench$((1 - n))" "Interface = tincb" >"$home/etc/$n/tinc.conf"
        printf '%s\n' "Address = 10.97.0.$((n + 1))" "Subnet = 10.96.0.$((n + 1))/32" "PMTUDiscovery = no" >"$home/etc/$n/hosts/bench$n"
        (inside "$a" "$root" "$home" tincd -c "/etc/$n" -K) </dev/null >"$work/tinc-keys.log" 2>&1
    done
    for n in 0 1; do cp "$home/etc/$n/hosts/bench$n" "$home/etc/$((1 - n))/hosts/"; done
    n=0
    for ns in "$a" "$b"; do
        (inside "$ns" "$root" "$home" tincd -c "/etc/$n" -D --pidfile="/tmp/$n.pid") >"$work/tinc$n.log" 2>&1 &
        pids+=($!)
        device "$ns" tincb
        ip -n "$ns" addr add "10.96.0.$((n + 1))/24" dev tincb
        ip -n "$ns" link set tincb mtu 1420 up
        n=$((n + 1))
    done
    measure tinc 10.96.0.2
}
