# shellcheck shell=bash disable=SC2154 # bench/run.sh's variables
# strongSwan with kernel-libipsec, its ESP in userspace: AES-128-GCM in tunnel mode in UDP, which is all that it can by default. Its TUN device has an
# MTU of 1400. Few plugins: those that it needs.

strongswan() {
    local root ns n other home secret
    root=$(folder strongswan)
    secret=$(head -c 24 /dev/urandom | base64)
    n=0
    for ns in "$a" "$b"; do
        home=$work/strongswan/$n other=$((2 - n))
        mkdir -p "$home"/{etc/swanctl,tmp,var/run}
        cat >"$home/etc/strongswan.conf" <<CONF
charon-systemd {
  load = random nonce openssl socket-default vici kdf hmac sha2 aes gcm kernel-libipsec kernel-netlink
  journal { default = -1 }
  filelog { stderr { default = 1 } }
}
CONF
        cat >"$home/etc/swanctl/swanctl.conf" <<CONF
connections { bench {
  version = 2
  local_addrs = 10.97.0.$((n + 1))
  remote_addrs = 10.97.0.$other
  local { auth = psk }
  remote { auth = psk }
  children { bench {
    local_ts = 10.96.0.$((n + 1))/32
    remote_ts = 10.96.0.$other/32
    esp_proposals = aes128gcm16
  } }
} }
secrets { ike-bench { secret = "$secret" } }
CONF
        # It routes to the other side by itself, from an address that must be there.
        ip -n "$ns" addr add "10.96.0.$((n + 1))/32" dev lo
        (inside "$ns" "$root" "$home" /usr/sbin/charon-systemd) >"$work/strongswan$n.log" 2>&1 &
        pids+=($!)
        await "strongSwan's socket" test -S "$home/var/run/charon.vici"
        (inside "$ns" "$root" "$home" /usr/sbin/swanctl --load-all) >"$work/strongswan-load$n.log" 2>&1
        n=$((n + 1))
    done
    (inside "$a" "$root" "$work/strongswan/0" /usr/sbin/swanctl --initiate --child bench --timeout 20) >"$work/strongswan-up.log" 2>&1
    measure strongswan 10.96.0.2
}
