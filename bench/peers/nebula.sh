# shellcheck shell=bash disable=SC2154 # bench/run.sh's variables
# nebula, as its example configuration has it: AES-256-GCM, one routine. Its MTU of 1300 is for unknown paths and would cut packets of
# 1400 bytes in two; here it is as wireguard-go's. Hosts know each other's address, so that there is no lighthouse.

nebula() {
    local root ns n other home=$work/nebula
    root=$(folder nebula)
    mkdir -p "$home/tmp"
    (inside "$a" "$root" "$home" nebula-cert ca -name bench -duration 48h -out-crt /tmp/ca.crt -out-key /tmp/ca.key)
    for n in 0 1; do
        (inside "$a" "$root" "$home" nebula-cert sign -name "bench$n" -ip "10.96.0.$((n + 1))/24" -ca-crt /tmp/ca.crt -ca-key /tmp/ca.key \
            -out-crt "/tmp/$n.crt" -out-key "/tmp/$n.key")
    done
    n=0
    for ns in "$a" "$b"; do
        other=$((2 - n))
        cat >"$home/tmp/$n.yml" <<YML
pki: { ca: /tmp/ca.crt, cert: /tmp/$n.crt, key: /tmp/$n.key }
static_host_map: { "10.96.0.$other": ["10.97.0.$other:4242"] }
lighthouse: { am_lighthouse: false }
listen: { host: 10.97.0.$((n + 1)), port: 4242 }
cipher: aes
tun: { dev: nebb, mtu: 1420 }
firewall:
  outbound: [{ port: any, proto: any, host: any }]
  inbound: [{ port: any, proto: any, host: any }]
YML
        (inside "$ns" "$root" "$home" nebula -config "/tmp/$n.yml") >"$work/nebula$n.log" 2>&1 &
        pids+=($!)
        device "$ns" nebb
        n=$((n + 1))
    done
    measure nebula 10.96.0.2
}
