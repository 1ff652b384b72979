//! Records of IKE SAs as bytes: what the next process of this host reads, and no other host.
//!
//! One byte of version, then fields in a fixed order; what has no fixed length stands behind its own.
//! A record of an unknown version is refused by name, and a new tunnel is negotiated: a change of the
//! layout needs a new version and nothing else.

use std::net::{IpAddr, SocketAddr};

use ike::keys::IkeKeys;
use ike::nat::NatState;
use ike::negotiate::{EspSuite, IkeSuite};
use ike::record::{Asks, ChildRecord, CipherSpec, IkeSpi, Outstanding, ParseError, SaRecord};
use ike::{IkeSaId, Secret};
use ipsec::Instant;
use ipsec::sa::{Mode, Reqid};
use wire::bytes::{Put, Reader};
use wire::esp::Spi;
use wire::identity::Identity;
use wire::registry::{Encr, ExchangeType, Integ, Ke, Prf};
use wire::selector::TrafficSelector;

/// The layout that is written, and the only one that is read.
pub const VERSION: u8 = 1;

/// Elements of a list, at most; longer ones are not written and not read.
const MAX_LIST: usize = 256;

/// Names a record among those of one host: the local SPI of its IKE SA.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(pub u64);

/// One IKE SA with what the fleet knows of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The peer.
    pub peer: IpAddr,
    /// Whether this host began the first of the IKE SAs that led to it by rekeys.
    pub initiated: bool,
    /// The IKE SA.
    pub sa: SaRecord,
}

/// Why bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Another build wrote it.
    #[error("it has the layout {0}, and this build reads {VERSION}; its tunnel is negotiated anew")]
    Version(u8),
    /// It is cut short, or has bytes too many.
    #[error("{0}")]
    Length(#[from] ParseError),
    /// A field holds what it cannot hold.
    #[error("its {0} cannot be")]
    Value(&'static str),
}

/// What a mesh keeps about its journal.
#[derive(Default)]
pub(crate) struct Journal {
    /// Whether records are written at all.
    pub(crate) on: bool,
    /// Records of an earlier process that were not looked at yet.
    pub(crate) found: Vec<(Key, Secret)>,
    /// What is written.
    pub(crate) written: std::collections::BTreeMap<IkeSaId, Key>,
    /// Records whose outer part changed.
    pub(crate) unsaved: std::collections::BTreeSet<IkeSaId>,
    /// Restored IKE SAs without a sign of life, and whether one was missed already.
    pub(crate) unproven: std::collections::BTreeMap<IpAddr, (IkeSaId, bool)>,
    /// SPIs that peers send to and this host lost, until there are others for them.
    pub(crate) bereft: std::collections::BTreeMap<IpAddr, Vec<Spi>>,
}

impl Record {
    /// Its key.
    pub fn key(&self) -> Key {
        Key(self.sa.local_spi().0)
    }

    /// As bytes; keys are among them.
    pub fn encode(&self) -> Secret {
        let sa = &self.sa;
        // Enough that the vector does not grow in most cases, which would leave copies of keys behind.
        let stored = sa.answer.iter().chain(sa.outstanding.iter().flat_map(|o| &o.messages));
        let room = 1024 + stored.map(|m| m.len() + 4).sum::<usize>() + 256 * sa.children.len();
        let mut out = Vec::with_capacity(room);
        out.put_u8(VERSION);
        put_ip(&mut out, self.peer);
        out.put_u8(u8::from(self.initiated));
        put_names(&mut out, sa);
        put_keys(&mut out, sa);
        put_window(&mut out, sa);
        put_list(&mut out, &sa.orphans, |out, spi| out.put_u32(spi.0));
        put_times(&mut out, sa.since, sa.rekey_at);
        put_list(&mut out, &sa.children, put_child);
        Secret::new(out)
    }

    /// From bytes.
    ///
    /// # Errors
    /// If they are of another version, or not what [`encode`](Self::encode) makes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes, "record");
        let version = r.u8()?;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let peer = ip(&mut r)?;
        let initiated = flag(&mut r)?;
        let mut sa = names(&mut r)?;
        keys(&mut r, &mut sa)?;
        window(&mut r, &mut sa)?;
        sa.orphans = list(&mut r, |r| Ok(Spi(r.u32()?)))?;
        (sa.since, sa.rekey_at) = times(&mut r)?;
        sa.children = list(&mut r, child)?;
        r.finish()?;
        Ok(Self { peer, initiated, sa })
    }
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
    ];
    out.extend(flags.map(u8::from));
    put_bytes(out, &sa.local_id.to_body());
    put_bytes(out, &sa.remote_id.to_body());
}

/// A record of which only the names are there yet.
fn names(r: &mut Reader<'_>) -> Result<SaRecord, DecodeError> {
    let (spi_i, spi_r) = (IkeSpi(r.u64()?), IkeSpi(r.u64()?));
    let (local, remote) = (end(r)?, end(r)?);
    let mut flags = [false; 6];
    for bit in &mut flags {
        *bit = flag(r)?;
    }
    let [initiator, local_behind, remote_behind, encap, fragmentation, replaced] = flags;
    let empty = CipherSpec { encr: Encr(0), key_bits: 0, integ: Integ(0) };
    Ok(SaRecord {
        spi_i,
        spi_r,
        initiator,
        local,
        remote,
        nat: NatState { local_behind, remote_behind },
        encap,
        fragmentation,
        local_id: Identity::from_body(bytes(r)?)?,
        remote_id: Identity::from_body(bytes(r)?)?,
        suite: IkeSuite { cipher: empty, prf: Prf(0), ke: Ke(0) },
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
        children: Vec::new(),
    })
}

fn no_keys() -> IkeKeys {
    let [sk_d, sk_ai, sk_ar, sk_ei, sk_er, sk_pi, sk_pr] = Default::default();
    IkeKeys { sk_d, sk_ai, sk_ar, sk_ei, sk_er, sk_pi, sk_pr }
}

fn put_keys(out: &mut Vec<u8>, sa: &SaRecord) {
    put_cipher(out, sa.suite.cipher);
    out.put_u16(sa.suite.prf.0);
    out.put_u16(sa.suite.ke.0);
    let k = &sa.keys;
    for key in [&k.sk_d, &k.sk_ai, &k.sk_ar, &k.sk_ei, &k.sk_er] {
        put_bytes(out, key.expose());
    }
    out.put_u64(sa.sealed);
}

fn keys(r: &mut Reader<'_>, sa: &mut SaRecord) -> Result<(), DecodeError> {
    sa.suite = IkeSuite { cipher: cipher(r)?, prf: Prf(r.u16()?), ke: Ke(r.u16()?) };
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
            Asks::Child { spi_in, replaces } => {
                out.put_u8(2);
                out.put_u32(spi_in.0);
                put_option(out, replaces.as_ref(), |out, spi| out.put_u32(spi.0));
            }
        }
    });
}

fn window(r: &mut Reader<'_>, sa: &mut SaRecord) -> Result<(), DecodeError> {
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
                let spi_in = Spi(r.u32()?);
                Asks::Child { spi_in, replaces: option(r, |r| Ok(Spi(r.u32()?)))? }
            }
            _ => return Err(DecodeError::Value("request")),
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
    put_cipher(out, child.suite.cipher);
    put_option(out, child.suite.ke.as_ref(), |out, ke| out.put_u16(ke.0));
    put_list(out, &child.local_ts, put_selector);
    put_list(out, &child.remote_ts, put_selector);
    put_times(out, child.since, child.rekey_at);
}

fn child(r: &mut Reader<'_>) -> Result<ChildRecord, DecodeError> {
    let (reqid, spi_in, spi_out) = (Reqid(r.u32()?), Spi(r.u32()?), Spi(r.u32()?));
    if spi_in.0 < 256 || spi_out.0 < 256 {
        // RFC 4303 2.1: reserved.
        return Err(DecodeError::Value("SPI"));
    }
    let mode = if flag(r)? { Mode::Tunnel } else { Mode::Transport };
    let (encap, esn) = (flag(r)?, flag(r)?);
    let (cipher, ke) = (cipher(r)?, option(r, |r| Ok(Ke(r.u16()?)))?);
    let (local_ts, remote_ts) = (list(r, selector)?, list(r, selector)?);
    let (since, rekey_at) = times(r)?;
    let suite = EspSuite { cipher, esn, ke };
    Ok(ChildRecord {
        reqid,
        spi_in,
        spi_out,
        mode,
        suite,
        local_ts,
        remote_ts,
        encap,
        since,
        rekey_at,
    })
}

fn put_selector(out: &mut Vec<u8>, ts: &TrafficSelector) {
    out.put_u8(ts.protocol);
    out.put_u16(ts.start_port);
    out.put_u16(ts.end_port);
    put_ip(out, ts.start);
    put_ip(out, ts.end);
}

fn selector(r: &mut Reader<'_>) -> Result<TrafficSelector, DecodeError> {
    let (protocol, start_port, end_port) = (r.u8()?, r.u16()?, r.u16()?);
    let (start, end) = (ip(r)?, ip(r)?);
    let lawful = start.is_ipv4() == end.is_ipv4() && start <= end;
    let selector = TrafficSelector { protocol, start_port, end_port, start, end };
    lawful.then_some(selector).ok_or(DecodeError::Value("selector"))
}

fn put_cipher(out: &mut Vec<u8>, spec: CipherSpec) {
    out.put_u16(spec.encr.0);
    out.put_u16(spec.key_bits);
    out.put_u16(spec.integ.0);
}

fn cipher(r: &mut Reader<'_>) -> Result<CipherSpec, DecodeError> {
    Ok(CipherSpec { encr: Encr(r.u16()?), key_bits: r.u16()?, integ: Integ(r.u16()?) })
}

fn put_times(out: &mut Vec<u8>, since: Instant, rekey_at: Instant) {
    out.put_u64(since.as_nanos());
    out.put_u64(rekey_at.as_nanos());
}

fn times(r: &mut Reader<'_>) -> Result<(Instant, Instant), DecodeError> {
    Ok((Instant::from_nanos(r.u64()?), Instant::from_nanos(r.u64()?)))
}

fn put_end(out: &mut Vec<u8>, end: SocketAddr) {
    put_ip(out, end.ip());
    out.put_u16(end.port());
}

fn end(r: &mut Reader<'_>) -> Result<SocketAddr, DecodeError> {
    Ok(SocketAddr::new(ip(r)?, r.u16()?))
}

fn put_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(a) => {
            out.put_u8(4);
            out.put(&a.octets());
        }
        IpAddr::V6(a) => {
            out.put_u8(6);
            out.put(&a.octets());
        }
    }
}

fn ip(r: &mut Reader<'_>) -> Result<IpAddr, DecodeError> {
    match r.u8()? {
        4 => Ok(r.array::<4>()?.into()),
        6 => Ok(r.array::<16>()?.into()),
        _ => Err(DecodeError::Value("address")),
    }
}

fn flag(r: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Value("flag")),
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // All of them came out of datagrams or ciphers: none is near 4 GiB.
    out.put_u32(u32::try_from(bytes.len()).unwrap_or(0));
    out.put(bytes);
}

fn bytes<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let len = usize::try_from(r.u32()?).map_err(|_| DecodeError::Value("length"))?;
    Ok(r.take(len)?)
}

fn put_option<T>(out: &mut Vec<u8>, value: Option<&T>, put: impl Fn(&mut Vec<u8>, &T)) {
    out.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn option<T>(
    r: &mut Reader<'_>,
    read: impl Fn(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    if flag(r)? { read(r).map(Some) } else { Ok(None) }
}

fn put_list<T>(out: &mut Vec<u8>, items: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    let items = &items[..items.len().min(MAX_LIST)];
    out.put_u16(items.len() as u16);
    items.iter().for_each(|item| put(out, item));
}

fn list<T>(
    r: &mut Reader<'_>,
    read: impl Fn(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let len = usize::from(r.u16()?);
    if len > MAX_LIST {
        return Err(DecodeError::Value("list"));
    }
    (0..len).map(|_| read(r)).collect()
}
