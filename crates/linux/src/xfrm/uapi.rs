//! Numbers and layouts of `<linux/xfrm.h>`, by the kernel's own names.
//!
//! All numbers are in the machine's byte order but where a field says otherwise. A test compiles a C program
//! against the installed header and compares every size, offset and constant.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `XFRM_MSG_*`, the message types.
pub(crate) mod msg {
    pub(crate) const NEWSA: u16 = 0x10;
    pub(crate) const DELSA: u16 = 0x11;
    pub(crate) const GETSA: u16 = 0x12;
    pub(crate) const NEWPOLICY: u16 = 0x13;
    pub(crate) const DELPOLICY: u16 = 0x14;
    pub(crate) const GETPOLICY: u16 = 0x15;
    pub(crate) const ALLOCSPI: u16 = 0x16;
    pub(crate) const ACQUIRE: u16 = 0x17;
    pub(crate) const EXPIRE: u16 = 0x18;
    pub(crate) const UPDPOLICY: u16 = 0x19;
    pub(crate) const UPDSA: u16 = 0x1a;
    pub(crate) const FLUSHSA: u16 = 0x1c;
    pub(crate) const FLUSHPOLICY: u16 = 0x1d;
    pub(crate) const MAPPING: u16 = 0x26;
    pub(crate) const SETDEFAULT: u16 = 0x27;
    pub(crate) const GETDEFAULT: u16 = 0x28;
}

/// `XFRMA_*`, the attributes.
pub(crate) mod attr {
    pub(crate) const ALG_CRYPT: u16 = 2;
    pub(crate) const ENCAP: u16 = 4;
    pub(crate) const TMPL: u16 = 5;
    pub(crate) const POLICY: u16 = 7;
    pub(crate) const LTIME_VAL: u16 = 9;
    pub(crate) const REPLAY_VAL: u16 = 10;
    pub(crate) const LASTUSED: u16 = 15;
    pub(crate) const ALG_AEAD: u16 = 18;
    pub(crate) const ALG_AUTH_TRUNC: u16 = 20;
    pub(crate) const MARK: u16 = 21;
    pub(crate) const REPLAY_ESN_VAL: u16 = 23;
    pub(crate) const SA_EXTRA_FLAGS: u16 = 24;
    pub(crate) const PROTO: u16 = 25;
    pub(crate) const ADDRESS_FILTER: u16 = 26;
    pub(crate) const SET_MARK: u16 = 29;
    pub(crate) const SET_MARK_MASK: u16 = 30;
    pub(crate) const IF_ID: u16 = 31;
}

/// `XFRMNLGRP_*`, the multicast groups.
pub(crate) mod group {
    pub(crate) const ACQUIRE: u32 = 1;
    pub(crate) const EXPIRE: u32 = 2;
    pub(crate) const SA: u32 = 3;
    pub(crate) const POLICY: u32 = 4;
    pub(crate) const MAPPING: u32 = 8;
}

/// `XFRM_INF`: no limit.
pub(crate) const INF: u64 = u64::MAX;
/// `XFRM_MODE_TRANSPORT`.
pub(crate) const MODE_TRANSPORT: u8 = 0;
/// `XFRM_MODE_TUNNEL`.
pub(crate) const MODE_TUNNEL: u8 = 1;
/// `XFRM_STATE_AF_UNSPEC`: a selector without family admits both.
pub(crate) const STATE_AF_UNSPEC: u8 = 32;
/// `XFRM_STATE_ESN`.
pub(crate) const STATE_ESN: u8 = 128;
/// `UDP_ENCAP_ESPINUDP` of `<linux/udp.h>`.
pub(crate) const ENCAP_ESPINUDP: u16 = 2;
/// `IPPROTO_ESP`.
pub(crate) const PROTO_ESP: u8 = 50;
/// `XFRMA_REPLAY_ESN_MAX`: packets in the largest window.
pub(crate) const REPLAY_ESN_MAX: u32 = 4096;

/// A structure of the kernel: plain bytes both ways.
macro_rules! structures {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub(crate) struct $name { $(pub(crate) $field: $kind,)* }
    )*};
}

structures! {
    /// `struct xfrm_selector`; ports and their masks in network byte order.
    SelectorInfo {
        daddr: [u8; 16],
        saddr: [u8; 16],
        dport: [u8; 2],
        dport_mask: [u8; 2],
        sport: [u8; 2],
        sport_mask: [u8; 2],
        family: u16,
        prefixlen_d: u8,
        prefixlen_s: u8,
        proto: u8,
        pad: [u8; 3],
        ifindex: u32,
        user: u32,
    }
    /// `struct xfrm_id`; the SPI in network byte order.
    Id {
        daddr: [u8; 16],
        spi: [u8; 4],
        proto: u8,
        pad: [u8; 3],
    }
    /// `struct xfrm_lifetime_cfg`.
    LifetimeCfg {
        soft_byte_limit: u64,
        hard_byte_limit: u64,
        soft_packet_limit: u64,
        hard_packet_limit: u64,
        soft_add_expires_seconds: u64,
        hard_add_expires_seconds: u64,
        soft_use_expires_seconds: u64,
        hard_use_expires_seconds: u64,
    }
    /// `struct xfrm_lifetime_cur`; times in seconds since 1970.
    LifetimeCur {
        bytes: u64,
        packets: u64,
        add_time: u64,
        use_time: u64,
    }
    /// `struct xfrm_usersa_info`.
    SaInfo {
        sel: SelectorInfo,
        id: Id,
        saddr: [u8; 16],
        lft: LifetimeCfg,
        curlft: LifetimeCur,
        replay_errors: u32,
        replay: u32,
        integrity_failed: u32,
        seq: u32,
        reqid: u32,
        family: u16,
        mode: u8,
        replay_window: u8,
        flags: u8,
        pad: [u8; 7],
    }
    /// `struct xfrm_usersa_id`; the SPI in network byte order.
    SaId {
        daddr: [u8; 16],
        spi: [u8; 4],
        family: u16,
        proto: u8,
        pad: u8,
    }
    /// `struct xfrm_userspi_info`.
    SpiInfo {
        info: SaInfo,
        min: u32,
        max: u32,
    }
    /// `struct xfrm_userpolicy_info`.
    PolicyInfo {
        sel: SelectorInfo,
        lft: LifetimeCfg,
        curlft: LifetimeCur,
        priority: u32,
        index: u32,
        dir: u8,
        action: u8,
        flags: u8,
        share: u8,
        pad: [u8; 4],
    }
    /// `struct xfrm_userpolicy_id`.
    PolicyId {
        sel: SelectorInfo,
        index: u32,
        dir: u8,
        pad: [u8; 3],
    }
    /// `struct xfrm_user_tmpl`.
    Tmpl {
        id: Id,
        family: u16,
        pad0: [u8; 2],
        saddr: [u8; 16],
        reqid: u32,
        mode: u8,
        share: u8,
        optional: u8,
        pad1: u8,
        aalgos: u32,
        ealgos: u32,
        calgos: u32,
    }
    /// `struct xfrm_encap_tmpl`; ports in network byte order.
    EncapTmpl {
        encap_type: u16,
        sport: [u8; 2],
        dport: [u8; 2],
        pad: [u8; 2],
        oa: [u8; 16],
    }
    /// `struct xfrm_user_acquire`.
    Acquire {
        id: Id,
        saddr: [u8; 16],
        sel: SelectorInfo,
        policy: PolicyInfo,
        aalgos: u32,
        ealgos: u32,
        calgos: u32,
        seq: u32,
    }
    /// `struct xfrm_user_expire`.
    Expire {
        state: SaInfo,
        hard: u8,
        pad: [u8; 7],
    }
    /// `struct xfrm_user_mapping`; ports in network byte order.
    Mapping {
        id: SaId,
        reqid: u32,
        old_saddr: [u8; 16],
        new_saddr: [u8; 16],
        old_sport: [u8; 2],
        new_sport: [u8; 2],
    }
    /// `struct xfrm_replay_state`.
    ReplayState {
        oseq: u32,
        seq: u32,
        bitmap: u32,
    }
    /// `struct xfrm_replay_state_esn`, before its bitmap of `bmp_len` words.
    ReplayStateEsn {
        bmp_len: u32,
        oseq: u32,
        seq: u32,
        oseq_hi: u32,
        seq_hi: u32,
        replay_window: u32,
    }
    /// `struct xfrm_address_filter`.
    AddressFilter {
        saddr: [u8; 16],
        daddr: [u8; 16],
        family: u16,
        splen: u8,
        dplen: u8,
    }
    /// `struct xfrm_userpolicy_default`, and one byte to make it whole words.
    DefaultInfo {
        input: u8,
        fwd: u8,
        out: u8,
        pad: u8,
    }
    /// `struct xfrm_mark`.
    MarkInfo {
        v: u32,
        m: u32,
    }
    /// What stands before the key in `struct xfrm_algo`.
    AlgoCrypt {
        name: Name,
        key_bits: u32,
    }
    /// What stands before the key in `struct xfrm_algo_auth` and `struct xfrm_algo_aead`.
    AlgoAuth {
        name: Name,
        key_bits: u32,
        icv_bits: u32,
    }
}

/// `char alg_name[64]`, ended by a zero.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub(crate) struct Name(pub(crate) [u8; 64]);

impl Default for Name {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl Name {
    /// The names here are constants of at most 63 bytes.
    pub(crate) fn new(text: &str) -> Self {
        let mut name = [0; 64];
        name.iter_mut().zip(text.bytes().take(63)).for_each(|(to, from)| *to = from);
        Self(name)
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::netlink::text(&self.0))
    }
}

/// The structure at the beginning of `bytes`.
pub(crate) fn read<T: FromBytes>(bytes: &[u8]) -> Option<T> {
    T::read_from_prefix(bytes).ok().map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::mem::{offset_of, size_of};
    use std::process::{Command, Stdio};

    use super::*;

    macro_rules! fields {
        ($out:ident, $($ours:ident = $theirs:literal { $($mine:ident = $field:literal),* $(,)? })*) => {$(
            $out.push((concat!("sizeof(struct ", $theirs, ")").to_owned(), size_of::<$ours>() as u64));
            $($out.push((
                concat!("offsetof(struct ", $theirs, ", ", $field, ")").to_owned(),
                offset_of!($ours, $mine) as u64,
            ));)*
        )*};
    }

    macro_rules! numbers {
        ($out:ident, $($module:ident $prefix:literal: $($name:ident)*;)*) => {$($(
            $out.push((concat!($prefix, stringify!($name)).to_owned(), u64::from($module::$name)));
        )*)*};
    }

    /// C expressions, and what they are here.
    fn expected() -> Vec<(String, u64)> {
        let mut out = Vec::new();
        fields! { out,
            SelectorInfo = "xfrm_selector" { daddr = "daddr", saddr = "saddr", dport = "dport", dport_mask = "dport_mask",
                sport = "sport", sport_mask = "sport_mask", family = "family", prefixlen_d = "prefixlen_d",
                prefixlen_s = "prefixlen_s", proto = "proto", ifindex = "ifindex", user = "user" }
            Id = "xfrm_id" { daddr = "daddr", spi = "spi", proto = "proto" }
            LifetimeCfg = "xfrm_lifetime_cfg" { soft_byte_limit = "soft_byte_limit", hard_byte_limit = "hard_byte_limit",
                soft_packet_limit = "soft_packet_limit", hard_packet_limit = "hard_packet_limit",
                soft_add_expires_seconds = "soft_add_expires_seconds", hard_add_expires_seconds = "hard_add_expires_seconds",
                soft_use_expires_seconds = "soft_use_expires_seconds", hard_use_expires_seconds = "hard_use_expires_seconds" }
            LifetimeCur = "xfrm_lifetime_cur" { bytes = "bytes", packets = "packets", add_time = "add_time", use_time = "use_time" }
            SaInfo = "xfrm_usersa_info" { sel = "sel", id = "id", saddr = "saddr", lft = "lft", curlft = "curlft",
                replay_errors = "stats.replay_window", replay = "stats.replay", integrity_failed = "stats.integrity_failed",
                seq = "seq", reqid = "reqid", family = "family", mode = "mode", replay_window = "replay_window", flags = "flags" }
            SaId = "xfrm_usersa_id" { daddr = "daddr", spi = "spi", family = "family", proto = "proto" }
            SpiInfo = "xfrm_userspi_info" { info = "info", min = "min", max = "max" }
            PolicyInfo = "xfrm_userpolicy_info" { sel = "sel", lft = "lft", curlft = "curlft", priority = "priority",
                index = "index", dir = "dir", action = "action", flags = "flags", share = "share" }
            PolicyId = "xfrm_userpolicy_id" { sel = "sel", index = "index", dir = "dir" }
            Tmpl = "xfrm_user_tmpl" { id = "id", family = "family", saddr = "saddr", reqid = "reqid", mode = "mode",
                share = "share", optional = "optional", aalgos = "aalgos", ealgos = "ealgos", calgos = "calgos" }
            EncapTmpl = "xfrm_encap_tmpl" { encap_type = "encap_type", sport = "encap_sport", dport = "encap_dport", oa = "encap_oa" }
            Acquire = "xfrm_user_acquire" { id = "id", saddr = "saddr", sel = "sel", policy = "policy", seq = "seq" }
            Expire = "xfrm_user_expire" { state = "state", hard = "hard" }
            Mapping = "xfrm_user_mapping" { id = "id", reqid = "reqid", old_saddr = "old_saddr", new_saddr = "new_saddr",
                old_sport = "old_sport", new_sport = "new_sport" }
            ReplayState = "xfrm_replay_state" { oseq = "oseq", seq = "seq", bitmap = "bitmap" }
            ReplayStateEsn = "xfrm_replay_state_esn" { bmp_len = "bmp_len", oseq = "oseq", seq = "seq", oseq_hi = "oseq_hi",
                seq_hi = "seq_hi", replay_window = "replay_window" }
            AddressFilter = "xfrm_address_filter" { saddr = "saddr", daddr = "daddr", family = "family", splen = "splen", dplen = "dplen" }
            MarkInfo = "xfrm_mark" { v = "v", m = "m" }
            AlgoCrypt = "xfrm_algo" { name = "alg_name", key_bits = "alg_key_len" }
            AlgoAuth = "xfrm_algo_auth" { name = "alg_name", key_bits = "alg_key_len", icv_bits = "alg_trunc_len" }
            AlgoAuth = "xfrm_algo_aead" { name = "alg_name", key_bits = "alg_key_len", icv_bits = "alg_icv_len" }
        }
        numbers! { out,
            msg "XFRM_MSG_": NEWSA DELSA GETSA NEWPOLICY DELPOLICY GETPOLICY ALLOCSPI ACQUIRE EXPIRE UPDPOLICY UPDSA
                FLUSHSA FLUSHPOLICY MAPPING SETDEFAULT GETDEFAULT;
            attr "XFRMA_": ALG_CRYPT ENCAP TMPL POLICY LTIME_VAL REPLAY_VAL LASTUSED ALG_AEAD ALG_AUTH_TRUNC MARK
                REPLAY_ESN_VAL SA_EXTRA_FLAGS PROTO ADDRESS_FILTER SET_MARK SET_MARK_MASK IF_ID;
            group "XFRMNLGRP_": ACQUIRE EXPIRE SA POLICY MAPPING;
        }
        let single = [
            ("XFRM_INF", INF),
            ("XFRM_MODE_TRANSPORT", MODE_TRANSPORT.into()),
            ("XFRM_MODE_TUNNEL", MODE_TUNNEL.into()),
            ("XFRM_STATE_AF_UNSPEC", STATE_AF_UNSPEC.into()),
            ("XFRM_STATE_ESN", STATE_ESN.into()),
            ("UDP_ENCAP_ESPINUDP", ENCAP_ESPINUDP.into()),
            ("IPPROTO_ESP", PROTO_ESP.into()),
            ("XFRMA_REPLAY_ESN_MAX", REPLAY_ESN_MAX.into()),
            // The fourth byte is ours.
            ("sizeof(struct xfrm_userpolicy_default) + 1", size_of::<DefaultInfo>() as u64),
        ];
        out.extend(single.map(|(name, value)| (name.to_owned(), value)));
        out
    }

    #[test]
    fn as_the_header_has_it() {
        let expected = expected();
        let mut source = String::from(
            "#include <stddef.h>\n#include <stdio.h>\n#include <netinet/in.h>\n#include <linux/udp.h>\n#include <linux/xfrm.h>\nint main(void) {\n",
        );
        for (expression, _) in &expected {
            source += &format!("printf(\"%llu\\n\", (unsigned long long)({expression}));\n");
        }
        source += "return 0; }\n";
        let program = std::env::temp_dir().join(format!("xfrm-header-{}", std::process::id()));
        let compiler = Command::new("cc")
            .args(["-x", "c", "-", "-o"])
            .arg(&program)
            .stdin(Stdio::piped())
            .spawn();
        let Ok(mut compiler) = compiler else {
            return eprintln!("SKIPPED: 1 test: no C compiler");
        };
        compiler.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
        assert!(compiler.wait().unwrap().success(), "the header lacks something");
        let output = Command::new(&program).output().unwrap();
        std::fs::remove_file(&program).unwrap();
        let values = String::from_utf8(output.stdout).unwrap();
        let found: Vec<u64> = values.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(found.len(), expected.len());
        for ((expression, ours), theirs) in expected.iter().zip(found) {
            assert_eq!(*ours, theirs, "{expression}");
        }
    }
}
