//! SAs: install, replace, move, remove.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipsec::change::RefusalReason;
use ipsec::sa::{Direction, Mode, Outer, Sa, SaKey};
use wire::esp::Spi;

use super::{Kernel, foreign_sa, refused};
use crate::errno::Errno;
use crate::xfrm::encode::{self, Move};
use crate::xfrm::probe::RESERVED_SPI;
use crate::xfrm::state::State;
use crate::xfrm::uapi::LifetimeCfg;
use crate::xfrm::{Error, decode, state};

/// The SAs that this process installed.
#[derive(Debug, Default)]
pub(super) struct Sas(BTreeMap<SaKey, Known>);

/// What is remembered of an SA.
#[derive(Debug)]
pub(super) struct Known {
    /// Without its keys.
    pub(super) sa: Sa,
    /// No packet has come by it yet, and the kernel is to tell when one does.
    pub(super) unseen: bool,
    /// As they are in the kernel.
    pub(super) limits: LifetimeCfg,
    /// When it was installed and how many packets it had carried, at the last look.
    seen: Option<(u64, u64)>,
}

impl Known {
    fn new(sa: &Sa, unseen: bool) -> Self {
        let limits = if unseen { first_use(sa) } else { encode::limits(sa) };
        Self { sa: without_keys(sa), unseen, limits, seen: None }
    }

    /// Whether what is in the kernel is this SA. One that was taken away and put back by somebody else has counted anew,
    /// and its sequence numbers with it.
    pub(super) fn agrees(&self, there: &State) -> bool {
        let sa = &self.sa;
        let since = self
            .seen
            .is_none_or(|(added, packets)| added == there.added && packets <= there.packets);
        since
            && there.src == sa.src
            && there.reqid == sa.reqid.0
            && there.mode == encode::mode(sa.mode)
            && there.esn == sa.esn
            && there.selector == state::selector(sa)
            && there.encap == sa.encap.map(|encap| encode::encap_ports(sa, encap))
            && there.limits == self.limits
    }

    /// Remembers what a look has shown.
    pub(super) fn note(&mut self, there: &State) {
        self.seen = Some((there.added, there.packets));
    }
}

impl Sas {
    pub(super) fn keys(&self) -> impl Iterator<Item = SaKey> {
        self.0.keys().copied()
    }

    pub(super) fn get(&self, key: SaKey) -> Option<&Known> {
        self.0.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: SaKey) -> Option<&mut Known> {
        self.0.get_mut(&key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Outbound SAs in tunnel mode.
    pub(super) fn tunnels(&self) -> impl Iterator<Item = &Sa> {
        self.0.values().map(|known| &known.sa).filter(|sa| is_outbound_tunnel(sa))
    }
}

pub(super) fn is_outbound_tunnel(sa: &Sa) -> bool {
    sa.direction == Direction::Out && sa.mode == Mode::Tunnel
}

impl Kernel {
    /// Installs an SA, or makes the one that is there like it.
    pub(super) fn add_sa(&mut self, sa: &Sa) -> Result<(), RefusalReason> {
        check(sa)?;
        let inbound = sa.direction == Direction::In;
        let limits = if inbound { first_use(sa) } else { encode::limits(sa) };
        let body = encode::new_sa(sa, limits).map_err(RefusalReason::NoAlgorithm)?;
        let unseen = match self.xfrm.add_sa(&body) {
            Err(error) if error.errno() == Some(Errno::EEXIST) => self.replace_sa(sa, &body)?,
            other => other.map(|()| inbound).map_err(|error| not_installed(&error, sa))?,
        };
        let old = self.sas.0.insert(sa.key(), Known::new(sa, unseen));
        if let Some(old) = old.filter(|old| is_outbound_tunnel(&old.sa)) {
            self.remove_tunnel(&old.sa);
        }
        self.add_tunnel(sa)
    }

    /// An SA of an earlier process: from here on it is known as if this one had installed it.
    pub(super) fn adopt_sa(&mut self, sa: &Sa) -> Result<(), RefusalReason> {
        check(sa)?;
        let there = self.own_sa(sa.key()).map_err(|error| refused(&error, "taking over an SA"))?;
        let Some(there) = there else {
            return Err(RefusalReason::Gone(format!("SA {} to {}", sa.spi, sa.dst)));
        };
        // The limit that makes the kernel tell of the first packet; no manifest has one so low.
        let unseen = sa.direction == Direction::In && there.limits.soft_packet_limit <= 1;
        let limits = there.limits;
        let known = Known { limits, ..Known::new(sa, unseen) };
        if !known.agrees(&there) {
            let text = format!("SA {} to {} is not what was installed", sa.spi, sa.dst);
            return Err(RefusalReason::Conflict(text));
        }
        self.sas.0.insert(sa.key(), known);
        if unseen {
            // The kernel has told the last process, perhaps, which has not done anything about it; it tells once.
            match there.packets {
                0 => self.arm(sa.key(), first_use),
                _ => self.first_use(sa.key()),
            }
        }
        self.add_tunnel(sa)
    }

    /// Takes one of our SAs away.
    pub(super) fn remove_sa(&mut self, key: SaKey) -> Result<(), RefusalReason> {
        self.forget_sa(key);
        let removed = self.own_sa(key).and_then(|there| match there {
            Some(_) => self.xfrm.remove_sa(key),
            None => Ok(()),
        });
        removed.map_err(|error| refused(&error, "removing an SA"))
    }

    /// An SA is gone, or is to go: with a tunnel go its policies.
    pub(super) fn forget_sa(&mut self, key: SaKey) -> Option<Known> {
        let known = self.sas.0.remove(&key)?;
        if is_outbound_tunnel(&known.sa) {
            self.remove_tunnel(&known.sa);
        }
        Some(known)
    }

    /// An SA goes between other addresses or ports now; it may have another key after that.
    pub(super) fn move_sa(&mut self, key: SaKey, outer: Outer) -> Result<(), RefusalReason> {
        let Some(known) = self.sas.get(key) else { return Ok(()) };
        let (mut sa, unseen, limits) = (known.sa.clone(), known.unseen, known.limits);
        let before = (sa.src, sa.dst, sa.encap.is_some());
        sa.relocate(outer);
        check(&sa)?;
        if before == (sa.src, sa.dst, sa.encap.is_some()) {
            let known = Known::new(&sa, unseen);
            self.update_sa(&sa, known.limits)?;
            self.sas.0.insert(key, known);
            return Ok(());
        }
        let there = self.xfrm.sa(key).map_err(|error| refused(&error, "moving an SA"))?;
        let Some(there) = there else { return Ok(()) };
        self.forget_sa(key);
        self.transplant(key, &there, &sa)?;
        self.sas.0.insert(sa.key(), Known { limits, ..Known::new(&sa, unseen) });
        self.add_tunnel(&sa)
    }

    /// The peer was refused: the next packet to it may ask again at once.
    ///
    /// Packets that the kernel itself holds are let go by its own timer.
    pub(super) fn drop_queued(&mut self, peer: IpAddr) -> Result<(), RefusalReason> {
        let what = "forgetting an acquire";
        let states = self.xfrm.states(Some(peer)).map_err(|error| refused(&error, what))?;
        for larval in states.iter().filter(|state| state.is_ours() && state.is_larval()) {
            self.xfrm
                .remove_larval(larval, RESERVED_SPI.0)
                .map_err(|error| refused(&error, what))?;
        }
        Ok(())
    }

    /// The limits of an SA, now that its first packet has come.
    pub(super) fn arm(&mut self, key: SaKey, limits: impl Fn(&Sa) -> LifetimeCfg) {
        let Some(known) = self.sas.get(key) else { return };
        let sa = known.sa.clone();
        let limits = limits(&sa);
        match self.update_sa(&sa, limits) {
            Ok(()) => drop(self.sas.0.get_mut(&key).map(|known| known.limits = limits)),
            Err(reason) => tracing::debug!(?key, %reason, "limits of an SA"),
        }
    }

    /// There is an SA of this name. `Ok(true)`: the one that is there now has seen no packet.
    fn replace_sa(&mut self, sa: &Sa, body: &encode::SecretBody) -> Result<bool, RefusalReason> {
        let (key, inbound) = (sa.key(), sa.direction == Direction::In);
        let failed = |error: Error| refused(&error, "replacing an SA");
        let there = self.xfrm.sa(key).map_err(failed)?;
        let state = there.as_ref().and_then(|raw| decode::state(raw));
        let (Some(there), Some(old)) = (there, state) else {
            // It went this very moment.
            self.xfrm.add_sa(body).map_err(|error| not_installed(&error, sa))?;
            return Ok(inbound);
        };
        if !old.is_ours() {
            return Err(foreign_sa(key, &old));
        }
        if !decode::same_keys(&there, body.bytes()) {
            self.xfrm.remove_sa(key).map_err(failed)?;
            self.xfrm.add_sa(body).map_err(|error| not_installed(&error, sa))?;
            return Ok(inbound);
        }
        // With the same keys sequence numbers go on: beginning anew would use nonces twice.
        let unseen = inbound && old.packets == 0;
        let limits = if unseen { first_use(sa) } else { encode::limits(sa) };
        let in_place = old.src == sa.src
            && old.reqid == sa.reqid.0
            && old.selector == state::selector(sa)
            && old.encap.is_some() == sa.encap.is_some();
        if !in_place {
            self.transplant(key, &there, sa)?;
        }
        self.update_sa(sa, limits)?;
        Ok(unseen)
    }

    /// Takes an SA away and installs it as `sa` is, with its keys, window and counters.
    fn transplant(&mut self, key: SaKey, raw: &[u8], sa: &Sa) -> Result<(), RefusalReason> {
        let Some(body) = encode::moved_sa(raw, &Move::to(sa)) else {
            return Err(RefusalReason::Other("an SA without sequence numbers left".into()));
        };
        self.xfrm.remove_sa(key).map_err(|error| refused(&error, "moving an SA"))?;
        self.xfrm.add_sa(&body).map_err(|error| not_installed(&error, sa))
    }

    fn update_sa(&mut self, sa: &Sa, limits: LifetimeCfg) -> Result<(), RefusalReason> {
        let body = encode::update_sa(sa, limits).map_err(RefusalReason::NoAlgorithm)?;
        self.xfrm.update_sa(&body).map_err(|error| refused(&error, "updating an SA"))
    }

    /// The SA of this key, if it is one of ours.
    fn own_sa(&mut self, key: SaKey) -> Result<Option<State>, Error> {
        let there = self.xfrm.sa(key)?;
        Ok(there.and_then(|raw| decode::state(&raw)).filter(State::is_ours))
    }
}

/// Of an inbound SA: a soft limit that the first packet reaches is how the kernel tells of that packet.
pub(super) fn first_use(sa: &Sa) -> LifetimeCfg {
    LifetimeCfg { soft_packet_limit: 0, ..encode::limits(sa) }
}

/// The next packet after one that verified.
pub(super) fn second_use(sa: &Sa) -> LifetimeCfg {
    LifetimeCfg { soft_packet_limit: 1, ..encode::limits(sa) }
}

fn without_keys(sa: &Sa) -> Sa {
    Sa { encr_key: Default::default(), integ_key: Default::default(), ..sa.clone() }
}

fn check(sa: &Sa) -> Result<(), RefusalReason> {
    let wrong = |what: &str| Err(RefusalReason::Other(format!("SA {}: {what}", sa.spi)));
    match sa {
        // RFC 4303 2.1: 0 is never sent, 1 to 255 are reserved.
        Sa { spi: Spi(0..256), .. } => wrong("the SPI is reserved"),
        Sa { src, dst, .. } if src.is_ipv4() != dst.is_ipv4() => wrong("addresses of two families"),
        Sa { reqid, .. } if !crate::xfrm::REQIDS.contains(&reqid.0) => {
            wrong("the reqid is not one of ours")
        }
        _ => Ok(()),
    }
}

fn not_installed(error: &Error, sa: &Sa) -> RefusalReason {
    let (cipher, module) = (sa.cipher, if sa.dst.is_ipv4() { "esp4" } else { "esp6" });
    match error.errno() {
        Some(Errno::ENOSYS | Errno::ENOENT) => RefusalReason::NoAlgorithm(format!(
            "{cipher} ({error}): load the kernel's modules for it"
        )),
        Some(Errno::EPROTONOSUPPORT) => {
            RefusalReason::NoAlgorithm(format!("ESP ({error}): load the kernel's module {module}"))
        }
        _ => refused(error, &format!("installing SA {} with {cipher}", sa.spi)),
    }
}
