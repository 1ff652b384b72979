//! A record as bytes: what the next process of this host reads, and no other host.
//!
//! One byte of version, then fields in a fixed order ([`wire::kept`]). A record of an unknown version is refused
//! by name, and a new tunnel is negotiated: a change of the layout needs a new version and nothing else.

use crypto::Secret;
use ipsec::Instant;
use ipsec::sa::{Mode, Reqid};
use wire::bytes::{Put, Reader};
use wire::esp::Spi;
use wire::identity::Identity;
use wire::kept::{
    Kept, KeptError, bytes, end, flag, ip, list, option, put_bytes, put_end, put_ip, put_list,
    put_option, put_selector, selector,
};
use wire::registry::{Encr, ExchangeType, Integ, Ke, Prf};

use super::{Asks, ChildRecord, CipherSpec, IkeSpi, KeptMobility, Origin, Outstanding, SaRecord};
use crate::ipcomp::Cpis;
use crate::keys::IkeKeys;
use crate::mobility::Path;
use crate::multi_ke::Additional;
use crate::narrow::Names;
use crate::nat::NatState;
use crate::negotiate::{EspSuite, IkeSuite};

/// The layout that is written, and the only one that is read.
pub const VERSION: u8 = 8;

/// Why bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Another build wrote it.
    #[error(
        "its IKE SA has the layout {0}, and this build reads {VERSION}; its tunnel is negotiated anew"
    )]
    Version(u8),
    /// They are cut short, too many, or a field holds what it cannot hold.
    #[error("{0}")]
    Field(#[from] KeptError),
}

impl SaRecord {
    /// Appends it; keys are among the bytes: `out` is to be wiped, and not to grow (see [`encoded_len`](Self::encoded_len)).
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(VERSION);
        put_names(out, self);
        put_keys(out, self);
        put_window(out, self);
        put_list(out, &self.orphans, |out, spi| out.put_u32(spi.0));
        put_times(out, self.since, self.rekey_at);
        put_option(out, self.origin.as_ref(), put_origin);
        put_list(out, &self.children, put_child);
    }

    /// Bytes that are enough in most cases: a vector that grows leaves copies of keys behind.
    pub fn encoded_len(&self) -> usize {
        let stored = self.answer.iter().chain(self.outstanding.iter().flat_map(|o| &o.messages));
        1024 + stored.map(|m| m.len() + 4).sum::<usize>() + 256 * self.children.len()
    }

    /// From all that is left in `r`.
    ///
    /// # Errors
    /// If it is of another version, or not what [`encode`](Self::encode) makes.
    pub fn decode(mut r: Reader<'_>) -> Result<Self, DecodeError> {
        match r.u8().map_err(KeptError::from)? {
            VERSION => Ok(whole(r)?),
            other => Err(DecodeError::Version(other)),
        }
    }
}

fn whole(mut r: Reader<'_>) -> Kept<SaRecord> {
    let mut sa = names(&mut r)?;
    keys(&mut r, &mut sa)?;
    window(&mut r, &mut sa)?;
    sa.orphans = list(&mut r, |r| Ok(Spi(r.u32()?)))?;
    (sa.since, sa.rekey_at) = times(&mut r)?;
    sa.origin = option(&mut r, origin)?;
    sa.children = list(&mut r, child)?;
    r.finish()?;
    Ok(sa)
}

fn put_origin(out: &mut Vec<u8>, origin: &Origin) {
    out.put_u8(u8::from(origin.own));
    put_bytes(out, &origin.nonce);
    put_times(out, origin.began, origin.since);
}

fn origin(r: &mut Reader<'_>) -> Kept<Origin> {
    let (own, nonce) = (flag(r)?, bytes(r)?.into());
    let (began, since) = times(r)?;
    Ok(Origin { own, nonce, began, since })
}

fn put_names(out: &mut Vec<u8>, sa: &SaRecord) {
    out.put_u64(sa.spi_i.0);
    out.put_u64(sa.spi_r.0);
    put_end(out, sa.local);
    put_end(out, sa.remote);
    let flags = [
        sa.initiator,
        sa.nat.local_behind,
        sa.nat.remote_behind,
        sa.encap,
        sa.fragmentation,
        sa.replaced,
        sa.udp,
    ];
    out.extend(flags.map(u8::from));
    put_option(out, sa.mobility.as_ref(), put_mobility);
    put_bytes(out, &sa.local_id.to_body());
    put_bytes(out, &sa.remote_id.to_body());
    put_option(out, sa.token.as_ref(), |out, token| put_bytes(out, token.expose()));
}

/// A record of which only the names are there yet.
fn names(r: &mut Reader<'_>) -> Kept<SaRecord> {
    let (spi_i, spi_r) = (IkeSpi(r.u64()?), IkeSpi(r.u64()?));
    let (local, remote) = (end(r)?, end(r)?);
    let mut flags = [false; 7];
    for bit in &mut flags {
        *bit = flag(r)?;
    }
    let [initiator, local_behind, remote_behind, encap, fragmentation, replaced, udp] = flags;
    let mobility = option(r, mobility)?;
    let empty = CipherSpec { encr: Encr(0), key_bits: 0, integ: Integ(0) };
    Ok(SaRecord {
        spi_i,
        spi_r,
        initiator,
        local,
        remote,
        nat: NatState { local_behind, remote_behind },
        encap,
        udp,
        mobility,
        fragmentation,
        local_id: Identity::from_body(bytes(r)?)?,
        remote_id: Identity::from_body(bytes(r)?)?,
        token: option(r, |r| Ok(Secret::from(bytes(r)?)))?,
        suite: IkeSuite { cipher: empty, prf: Prf(0), ke: Ke(0), additional: Additional::NONE },
        keys: no_keys(),
        sealed: 0,
        next_out: None,
        expected_in: 0,
        outstanding: None,
        answer: Vec::new(),
        orphans: Vec::new(),
        replaced,
        since: Instant::ZERO,
        rekey_at: Instant::ZERO,
        origin: None,
        children: Vec::new(),
    })
}

fn put_mobility(out: &mut Vec<u8>, kept: &KeptMobility) {
    put_list(out, &kept.theirs, |out, address| put_ip(out, *address));
    put_option(out, kept.trial.as_ref(), |out, path| {
        put_end(out, path.local);
        put_end(out, path.remote);
    });
}

fn mobility(r: &mut Reader<'_>) -> Kept<KeptMobility> {
    let theirs = list(r, ip)?;
    let trial = option(r, |r| Ok(Path { local: end(r)?, remote: end(r)? }))?;
    Ok(KeptMobility { theirs, trial })
}

fn no_keys() -> IkeKeys {
    let [sk_d, sk_ai, sk_ar, sk_ei, sk_er, sk_pi, sk_pr] = Default::default();
    IkeKeys { sk_d, sk_ai, sk_ar, sk_ei, sk_er, sk_pi, sk_pr }
}

fn put_keys(out: &mut Vec<u8>, sa: &SaRecord) {
    out.put(&sa.suite.cipher.to_bytes());
    out.put_u16(sa.suite.prf.0);
    out.put_u16(sa.suite.ke.0);
    put_additional(out, &sa.suite.additional);
    let k = &sa.keys;
    for key in [&k.sk_d, &k.sk_ai, &k.sk_ar, &k.sk_ei, &k.sk_er] {
        put_bytes(out, key.expose());
    }
    out.put_u64(sa.sealed);
}

fn keys(r: &mut Reader<'_>, sa: &mut SaRecord) -> Kept<()> {
    let (cipher, prf, ke) = (cipher(r)?, Prf(r.u16()?), Ke(r.u16()?));
    sa.suite = IkeSuite { cipher, prf, ke, additional: additional(r)? };
    let k = &mut sa.keys;
    for key in [&mut k.sk_d, &mut k.sk_ai, &mut k.sk_ar, &mut k.sk_ei, &mut k.sk_er] {
        *key = Secret::from(bytes(r)?);
    }
    sa.sealed = r.u64()?;
    Ok(())
}

fn put_window(out: &mut Vec<u8>, sa: &SaRecord) {
    put_option(out, sa.next_out.as_ref(), |out, id| out.put_u32(*id));
    out.put_u32(sa.expected_in);
    put_list(out, &sa.answer, |out, message| put_bytes(out, message));
    put_option(out, sa.outstanding.as_ref(), |out, sent| {
        out.put_u32(sent.id);
        put_list(out, &sent.messages, |out, message| put_bytes(out, message));
        match sent.asks {
            Asks::Nothing(exchange) => out.extend([0, exchange.0]),
            Asks::RekeyIke => out.put_u8(1),
            Asks::Child { spi_in, replaces, exchange } => {
                out.extend([2, exchange.0]);
                out.put_u32(spi_in.0);
                put_option(out, replaces.as_ref(), |out, spi| out.put_u32(spi.0));
            }
        }
    });
}

fn window(r: &mut Reader<'_>, sa: &mut SaRecord) -> Kept<()> {
    let message = |r: &mut Reader<'_>| Ok(bytes(r)?.to_vec());
    sa.next_out = option(r, |r| Ok(r.u32()?))?;
    sa.expected_in = r.u32()?;
    sa.answer = list(r, message)?;
    sa.outstanding = option(r, |r| {
        let (id, messages) = (r.u32()?, list(r, message)?);
        let asks = match r.u8()? {
            0 => Asks::Nothing(ExchangeType(r.u8()?)),
            1 => Asks::RekeyIke,
            2 => {
                let (exchange, spi_in) = (ExchangeType(r.u8()?), Spi(r.u32()?));
                Asks::Child { spi_in, replaces: option(r, |r| Ok(Spi(r.u32()?)))?, exchange }
            }
            _ => return Err(KeptError::Value("request")),
        };
        Ok(Outstanding { id, messages, asks })
    })?;
    Ok(())
}

fn put_child(out: &mut Vec<u8>, child: &ChildRecord) {
    out.put_u32(child.reqid.0);
    out.put_u32(child.spi_in.0);
    out.put_u32(child.spi_out.0);
    let tunnel = child.mode == Mode::Tunnel;
    out.extend([tunnel, child.encap, child.suite.esn].map(u8::from));
    out.put(&child.suite.cipher.to_bytes());
    put_option(out, child.suite.ke.as_ref(), |out, ke| out.put_u16(ke.0));
    put_additional(out, &child.suite.additional);
    put_list(out, &child.local_ts, put_selector);
    put_list(out, &child.remote_ts, put_selector);
    put_option(out, child.names.as_ref(), |out, names| {
        put_ip(out, names.local);
        put_ip(out, names.remote);
    });
    put_option(out, child.ipcomp.as_ref(), |out, cpis| {
        out.put_u16(cpis.inbound);
        out.put_u16(cpis.outbound);
    });
    put_times(out, child.since, child.rekey_at);
}

fn child(r: &mut Reader<'_>) -> Kept<ChildRecord> {
    let (reqid, spi_in, spi_out) = (Reqid(r.u32()?), Spi(r.u32()?), Spi(r.u32()?));
    if spi_in.0 < 256 || spi_out.0 < 256 {
        // RFC 4303 2.1: reserved.
        return Err(KeptError::Value("SPI"));
    }
    let mode = if flag(r)? { Mode::Tunnel } else { Mode::Transport };
    let (encap, esn) = (flag(r)?, flag(r)?);
    let (cipher, ke) = (cipher(r)?, option(r, |r| Ok(Ke(r.u16()?)))?);
    let additional = additional(r)?;
    let (local_ts, remote_ts) = (list(r, selector)?, list(r, selector)?);
    let names = option(r, |r| Ok(Names { local: ip(r)?, remote: ip(r)? }))?;
    let ipcomp = option(r, |r| Ok(Cpis { inbound: r.u16()?, outbound: r.u16()? }))?;
    let (since, rekey_at) = times(r)?;
    let suite = EspSuite { cipher, esn, ke, additional };
    Ok(ChildRecord {
        reqid,
        spi_in,
        spi_out,
        mode,
        suite,
        local_ts,
        remote_ts,
        names,
        encap,
        ipcomp,
        since,
        rekey_at,
    })
}

fn put_additional(out: &mut Vec<u8>, additional: &Additional) {
    let used = additional.0.iter().rposition(|ke| *ke != Ke::NONE).map_or(0, |last| last + 1);
    put_list(out, &additional.0[..used], |out, ke| out.put_u16(ke.0));
}

fn additional(r: &mut Reader<'_>) -> Kept<Additional> {
    let used = list(r, |r| Ok(Ke(r.u16()?)))?;
    let mut methods = [Ke::NONE; 7];
    methods.get_mut(..used.len()).ok_or(KeptError::Value("key exchanges"))?.copy_from_slice(&used);
    Ok(Additional(methods))
}

fn put_times(out: &mut Vec<u8>, since: Instant, rekey_at: Instant) {
    out.put_u64(since.as_nanos());
    out.put_u64(rekey_at.as_nanos());
}

fn times(r: &mut Reader<'_>) -> Kept<(Instant, Instant)> {
    Ok((Instant::from_nanos(r.u64()?), Instant::from_nanos(r.u64()?)))
}

fn cipher(r: &mut Reader<'_>) -> Kept<CipherSpec> {
    Ok(CipherSpec::from_bytes(r.array()?))
}
