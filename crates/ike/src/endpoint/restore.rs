//! IKE SAs out of the process and into the next one.

use super::*;
use crate::established::{Own, REPLACED};
use crate::mobility::{Mobility, Trial};
use crate::record::{COUNTER_LEAP, Outstanding, RestoreError, SaRecord};
use crate::window::Window;

/// What an IKE SA is called from here on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    /// The IKE SA.
    pub id: IkeSaId,
    /// Its child SAs, in the order of the record; `None` for one whose SPI is taken.
    pub children: Vec<Option<ChildId>>,
}

impl Endpoint {
    /// IKE SAs whose records are not what they were since this was last asked: to be exported, or, where
    /// there is nothing to export, forgotten, before the next `Output::Transmit` is carried out.
    pub fn take_unsaved(&mut self) -> BTreeSet<IkeSaId> {
        std::mem::take(&mut self.cx.unsaved)
    }

    /// What the next process needs to go on with an IKE SA; `None` where it could not.
    pub fn export(&self, ike: IkeSaId) -> Option<SaRecord> {
        SaRecord::of(&self.cx, self.sas.get(&ike)?)
    }

    /// Goes on with an IKE SA and those of its child SAs that the data plane still has. A request that
    /// was outstanding is sent again at once; else the peer is asked for a sign of life within seconds.
    /// No event tells of it.
    pub fn restore(
        &mut self,
        now: Now,
        record: SaRecord,
        config: Arc<PeerConfig>,
    ) -> Result<Restored, RestoreError> {
        record.check(now.at, &config)?;
        let of_peer = self.cx.ikes_of(config.remote).count();
        if self.sas.len() >= self.cx.limits.max_ike_sas || of_peer >= self.cx.limits.max_sas_of_peer
        {
            return Err(RestoreError::Full);
        }
        let spi = record.local_spi();
        if spi.0 == 0 || self.cx.by_spi.contains_key(&spi) {
            return Err(RestoreError::SpiTaken);
        }
        let id = self.cx.fresh_ike_id();
        let mut sa = revive(&self.cx, now, id, &record, config)?;
        let mut up = Established::new(
            &sa,
            now,
            record.local_id,
            record.remote_id,
            record.origin.map(Arc::new),
        );
        (up.since, up.rekey_at) = (record.since, record.rekey_at);
        up.token = record.token;
        up.queue.extend(record.orphans.into_iter().map(Task::DeleteSpi));
        if record.replaced {
            (up.life, sa.silent) = (Life::Replaced(id), true);
            self.cx.timers.set(id, Timer::Linger, now.at + REPLACED);
        } else {
            up.arm(&mut self.cx, &sa);
        }
        if sa.mobility.is_some() && !record.replaced {
            resume_move(&sa, &mut up, record.outstanding.is_some());
        }
        match record.outstanding {
            Some(sent) => send_again(&mut self.cx, &sa, &mut up, sent),
            None if record.replaced => {}
            None => up.retry(&mut self.cx, &sa, now, Task::Probe),
        }
        let ends = (sa.local.ip(), sa.remote.ip(), sa.home.ip());
        let config = sa.config.child.clone();
        sa.state = State::Up(Box::new(up));
        self.insert(Box::new(sa));
        let children = record.children.into_iter().take(self.cx.limits.max_children);
        let children = children
            .map(|child| child_sa::restore(&mut self.cx, id, ends, config.clone(), child))
            .collect();
        self.cx.unsaved.insert(id);
        for twin in self.twins(id) {
            self.settle_twins(now, id, twin);
        }
        self.with(now, id, |cx, sa| sa.proceed(cx, now, |_| {}));
        Ok(Restored { id, children })
    }
}

/// The SA with its keys and its window.
fn revive(
    cx: &Context,
    now: Now,
    id: IkeSaId,
    record: &SaRecord,
    config: Arc<PeerConfig>,
) -> Result<IkeSa, RestoreError> {
    let ends = Ends {
        local: record.local,
        remote: record.remote,
        initiator: record.initiator,
        spi_i: record.spi_i,
        spi_r: record.spi_r,
    };
    let schedule = config.common.retransmit;
    let mut sa = IkeSa::new(id, config, ends, State::Gone);
    (sa.nat, sa.encap, sa.udp) = (record.nat, record.encap, record.udp);
    sa.home.set_ip(sa.config.remote);
    if let Some(kept) = &record.mobility {
        let trial = kept.trial.map(|path| Trial { path, nat: None, sends: 0 });
        let theirs = kept.theirs.clone();
        sa.mobility = Some(Box::new(Mobility { theirs, trial, ..Mobility::default() }));
    }
    sa.fragmentation = record.fragmentation;
    let keys = record.keys.clone();
    sa.secure(cx, record.suite, keys).map_err(|e| RestoreError::Keys(e.to_string()))?;
    if let Some(secured) = &mut sa.secured {
        secured.sealed = record.sealed.saturating_add(COUNTER_LEAP);
    }
    sa.window = Window::restore(
        (record.next_out, record.expected_in),
        record.answer.clone(),
        record.outstanding.as_ref().map(|sent| (sent.id, sent.messages.clone())),
        now.at,
        schedule,
    );
    Ok(sa)
}

/// A move whose exchange the last process did not finish is gone on with; said twice it does no harm.
fn resume_move(sa: &IkeSa, up: &mut Established, outstanding: bool) {
    let trial = sa.mobility.as_ref().is_some_and(|m| m.trial.is_some());
    match up.decides(sa) {
        // Behind a NAT it is not known either where the peer saw this host last (RFC 4555 3.8).
        true if outstanding || trial || sa.nat.local_behind => up.push(Task::Update),
        false if trial => up.push(Task::Check),
        _ => {}
    }
}

fn send_again(cx: &mut Context, sa: &IkeSa, up: &mut Established, sent: Outstanding) {
    up.own = Some(Own::Recovered(sent.asks));
    for bytes in &sent.messages {
        cx.transmit(sa.local, sa.remote, bytes);
    }
    sa.arm_retransmit(cx);
}
