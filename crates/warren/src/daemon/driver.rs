//! The one loop: inputs to the mesh, its outputs carried out in order.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use ike::endpoint::Datagram;
use ike::{Done, JobId, Now};
use ipsec::Instant;
use ipsec::change::{Batch, Change};
use ipsec::dataplane::{DataplaneEvent, PacketInfo};
use mesh::recording::{Bundle, Given};
use mesh::{CommandError, Event, Input, Mesh, Output, Reply, Target};
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::carrier::{Arrival, Carrier};
use super::control::{Answer, Call, ExplainQuery, Refused, Request};
use super::jobs::Jobs;
use super::journal::Journal;
use super::log;
use super::orders::Orders;
use super::site::Site;
use super::tape::Tape;
use super::thrift::Thrift;
use super::trace::Traces;

/// Inputs taken in before the outputs are carried out again: bounds how long a reply can wait behind a flood.
const BURST: usize = 64;
/// The same on a slow machine, by time: whoever asks on the control socket waits for a few of these.
const TURN: Duration = Duration::from_millis(2);

/// Everything the loop holds.
pub struct Driver {
    /// The host.
    pub mesh: Mesh,
    /// Sockets, device, data plane.
    pub carrier: Carrier,
    /// Public-key work.
    pub jobs: Jobs,
    /// Its results.
    pub done: mpsc::UnboundedReceiver<(JobId, Done)>,
    /// Calls of the control socket.
    pub calls: mpsc::Receiver<Request>,
    /// To whoever monitors.
    pub events: broadcast::Sender<Event>,
    /// The manifest, its file, and what depends on them outside the mesh.
    pub site: Site,
    /// What the next process is to find, where that is possible.
    pub journal: Option<Journal>,
    /// A flush that is under way.
    pub leaving: Option<Leaving>,
    /// A lab may tamper with the data plane.
    pub rehearsal: bool,
    /// What operators have said of peers.
    pub orders: Orders,
    /// What came of the outputs that are being carried out: handed in when the mesh sleeps.
    pub again: VecDeque<Input>,
    /// A recording, if one was asked for.
    pub tape: Option<Tape>,
    /// What passed lately, and who wants to see what passes.
    pub traces: Traces,
    /// When memory goes back to the system.
    pub thrift: Thrift,
    /// The data plane was looked at: the host's addresses are next.
    pub look_around: bool,
    /// The newcomer among them that was dealt with.
    pub seen: Option<std::net::IpAddr>,
}

/// A flush: the peers are told first, so that nothing is lost that they have sent already.
pub struct Leaving {
    answer: oneshot::Sender<Answer>,
    /// Who has not agreed by then never will.
    until: Instant,
    /// Since when no tunnel is left.
    alone: Option<Instant>,
}

/// Peers have so long to agree that a tunnel goes.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// What was sent before all had agreed arrives within this, and a busy kernel has opened it.
const UNDER_WAY: Duration = Duration::from_millis(500);

/// How the loop ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// SAs and policies stay as far as they can.
    Stopped,
    /// Everything of ours is to be taken away.
    Flushed,
    /// The data plane carries nothing any more.
    Broken,
}

impl Driver {
    /// Runs until it is stopped.
    pub async fn run(&mut self) -> std::io::Result<Ended> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        loop {
            let mut until = self.carry_out();
            if self.carrier.broken().is_some() {
                return Ok(Ended::Broken);
            }
            if std::mem::take(&mut self.look_around) {
                self.welcome();
            }
            if let Some(leaving) = &mut self.leaving {
                if !self.mesh.has_tunnels() {
                    leaving.alone.get_or_insert(now().at);
                }
                let end = leaving.alone.map_or(leaving.until, |at| at + UNDER_WAY);
                if end <= now().at {
                    return Ok(self.flush().await);
                }
                until = until.min(end);
            }
            if let Some(ended) = self.wait(until, &mut hangup, &mut terminate, &mut interrupt).await
            {
                return Ok(ended);
            }
        }
    }

    /// Takes a new address of this host into the mesh: that of IPv6 may come long after that of IPv4. A manifest that was
    /// edited since waits for its reload.
    fn welcome(&mut self) {
        let newcomer = self.site.newcomer().filter(|address| self.seen != Some(*address));
        let Some(address) = newcomer else { return };
        self.seen = Some(address);
        if !self.site.is_current() {
            tracing::warn!(
                "{address} lies in ipsec_subnets: its packets are dropped until `warren reload`"
            );
            return;
        }
        tracing::info!("{address} takes part in the mesh from now on");
        if let Err(refused) = self.reload(false) {
            tracing::error!("{}", refused.error);
        }
    }

    /// Carries out outputs until the mesh sleeps; what came of them is handed in and carried out too.
    pub fn carry_out(&mut self) -> Instant {
        loop {
            let until = self.carry_out_once();
            match self.again.pop_front() {
                Some(input) => self.give(input, None),
                None => {
                    self.tidy_journal();
                    return until;
                }
            }
        }
    }

    /// Everything goes into the mesh by here; `bundle` is what a manifest was read from.
    pub fn give(&mut self, input: Input, bundle: Option<Bundle>) {
        let now = now();
        if let Some(tape) = &mut self.tape {
            tape.input(now, &input, bundle);
        }
        self.mesh.handle(now, input);
    }

    fn order(&mut self, command: mesh::Command) -> Result<Reply, CommandError> {
        let now = now();
        if let Some(tape) = &mut self.tape {
            tape.step(now, Given::Command(command.clone()));
        }
        self.mesh.command(now, command)
    }

    fn tidy_journal(&mut self) {
        if let Some(journal) = self.journal.as_mut().filter(|journal| journal.is_long()) {
            journal.rewrite(&self.mesh.journal());
        }
    }

    fn carry_out_once(&mut self) -> Instant {
        loop {
            let output = self.mesh.poll();
            if let Some(tape) = &mut self.tape {
                tape.output(&output);
            }
            match output {
                Output::Apply(batch) => {
                    let refusals = self.carrier.dataplane().apply(now().at, &batch);
                    if !refusals.is_empty() {
                        if let Some(tape) = &mut self.tape {
                            tape.refused();
                        }
                        self.again.push_back(Input::Applied(batch, refusals));
                    }
                }
                Output::Journal(key, record) => {
                    if let Some(journal) = &mut self.journal {
                        journal.put(key, record.as_ref());
                    }
                }
                Output::Transmit(datagram) => {
                    self.traces.message(&self.mesh, &datagram, true);
                    self.carrier.transmit(&datagram);
                }
                Output::Job(job) => {
                    self.thrift.job();
                    self.jobs.submit(job);
                }
                Output::Inspect => {
                    if self.thrift.look() {
                        linux::memory::give_back();
                    }
                    self.look_around = true;
                    self.carrier.look_after();
                    self.look_for_move();
                    let snapshot = self.carrier.dataplane().snapshot(now().at);
                    self.again.push_back(Input::Snapshot(snapshot));
                }
                Output::Report(event) => self.report(event),
                Output::Sleep(until, _) => return until,
            }
        }
    }

    /// Addresses come and go by whoever configures the network.
    fn look_for_move(&mut self) {
        if let Some(own) = self.site.changed_addresses(self.carrier.device()) {
            self.again.push_back(Input::Addresses(own));
        }
    }

    async fn wait(
        &mut self,
        until: Instant,
        hangup: &mut Signal,
        terminate: &mut Signal,
        interrupt: &mut Signal,
    ) -> Option<Ended> {
        tokio::select! {
            arrival = self.carrier.next() => match arrival {
                Arrival::Datagram(datagram) => {
                    self.take_datagrams(datagram);
                    // Whoever asks on the control socket is served between two bursts, however many there are.
                    tokio::task::yield_now().await;
                }
                Arrival::Events => self.take_dataplane_events(),
                Arrival::Passed(packet) => {
                    self.give(Input::Kernel(DataplaneEvent::Passed { packet }), None);
                }
            },
            Some((id, done)) = self.done.recv() => self.take_done(id, done),
            Some(request) = self.calls.recv() => return self.take_call(request),
            () = sleep_until(until) => self.give(Input::Tick, None),
            _ = hangup.recv() => if let Err(refused) = self.reload(false) { tracing::error!("{}", refused.error) },
            _ = terminate.recv() => return Some(Ended::Stopped),
            _ = interrupt.recv() => return Some(Ended::Stopped),
        }
        None
    }

    fn take_datagrams(&mut self, first: Datagram) {
        let end = now().at + TURN;
        self.take_datagram(first);
        for _ in 1..BURST {
            if now().at >= end {
                return;
            }
            let Ok(datagram) = self.carrier.intake.try_next() else { return };
            self.carry_out();
            self.take_datagram(datagram);
        }
    }

    fn take_datagram(&mut self, datagram: Datagram) {
        self.traces.message(&self.mesh, &datagram, false);
        self.give(Input::Datagram(datagram), None);
    }

    fn take_done(&mut self, id: JobId, done: Done) {
        self.give(Input::JobDone(id, done), None);
        for _ in 1..BURST {
            let Ok((id, done)) = self.done.try_recv() else { return };
            self.carry_out();
            self.give(Input::JobDone(id, done), None);
        }
    }

    fn take_dataplane_events(&mut self) {
        while let Some(event) = self.carrier.dataplane().poll_event() {
            self.give(Input::Kernel(event), None);
            self.carry_out();
        }
    }

    fn take_call(&mut self, request: Request) -> Option<Ended> {
        let (answer, ended) = match request.call {
            Call::Stop { flush: true } => return self.leave(request.answer),
            Call::Stop { flush: false } => {
                let _ = request.answer.send(Ok(json!({ "stopped": true, "flushed": false })));
                return Some(Ended::Stopped);
            }
            call => (self.answer(call), None),
        };
        // A client that went away does not wait for its answer.
        let _ = request.answer.send(answer);
        ended
    }

    fn answer(&mut self, call: Call) -> Answer {
        match call {
            Call::Status { peer, as_of } => self.status(peer, as_of),
            Call::Command(command) => {
                let reply = self.order(command).map_err(Refused::because)?;
                self.orders.put(self.mesh.orders());
                to_json(&reply)
            }
            Call::Reload { reauth } => self.reload(reauth),
            Call::Explain(query) => {
                to_json(&self.mesh.explain(now(), packet(&query)).map_err(Refused::because)?)
            }
            Call::Plan(file) => self.site.plan(&file, &self.mesh, now()).map_err(Refused::because),
            Call::Enforce(within) => {
                let watched = self.carrier.watched();
                let readiness = self.mesh.readiness(now(), within, watched);
                to_json(&readiness.map_err(Refused::because)?)
            }
            Call::Keys => {
                tracing::warn!("the keys of all SAs are given out on the control socket");
                self.site.keys(&self.mesh, self.carrier.sas())
            }
            Call::Trace(target, lines) => {
                let peer = self.mesh.resolve(&target).map_err(Refused::because)?;
                let row = self.mesh.peer_status(now(), &target).map_err(Refused::because)?;
                let many = || Refused::because("as many trace already as may");
                let receiver = self.traces.begin(peer).ok_or_else(many)?;
                // Whoever asked may be gone already.
                let _ = lines.send(receiver);
                Ok(
                    json!({ "peer": peer, "name": row.name, "state": row.state, "reason": row.reason }),
                )
            }
            Call::Recorded(target) => {
                let peer = self.mesh.resolve(&target).map_err(Refused::because)?;
                Ok(self.traces.recorded(&self.mesh, peer))
            }
            Call::Metrics => Ok(metrics(&self.mesh, self.carrier.refused())),
            Call::SaGone(key) if self.rehearsal => {
                let gone = Batch(vec![Change::RemoveSa(key)]);
                let refusals = self.carrier.dataplane().apply(now().at, &gone);
                Ok(json!({ "gone": refusals.is_empty() }))
            }
            Call::SaGone(_) => Err(Refused::because("only a lab's daemon lets this be done to it")),
            Call::Stop { .. } => Ok(Value::Null),
        }
    }

    fn status(&self, peer: Option<Target>, as_of: Option<u64>) -> Answer {
        let now = now();
        let now = Now { unix: as_of.unwrap_or(now.unix), ..now };
        match peer {
            None => to_json(&self.mesh.status(now)),
            Some(peer) => to_json(&self.mesh.peer_status(now, &peer).map_err(Refused::because)?),
        }
    }

    fn reload(&mut self, reauth: bool) -> Answer {
        let (mut loaded, notes) = self.site.reload(now().unix).map_err(Refused::because)?;
        loaded.prefer_encap = self.carrier.prefers_encap();
        // Where packets may pass in the clear, none is led to policies that are not there yet; elsewhere none past them.
        let optional = self.site.current().optional();
        if !optional {
            self.carrier.follow(self.site.current());
        }
        let bundle =
            self.site.take_bundle().map(|b| Bundle { prefer_encap: loaded.prefer_encap, ..b });
        self.give(Input::Manifest(Box::new(loaded)), bundle);
        self.carry_out();
        if optional {
            self.carrier.follow(self.site.current());
        }
        self.orders.put(self.mesh.orders());
        if reauth {
            self.order(mesh::Command::ReauthAll).map_err(Refused::because)?;
            self.carry_out();
        }
        Ok(json!({ "reloaded": self.site.path(), "notes": notes }))
    }

    fn leave(&mut self, answer: oneshot::Sender<Answer>) -> Option<Ended> {
        if self.leaving.is_some() {
            let _ = answer.send(Err(Refused::because("the daemon is stopping already")));
            return None;
        }
        // Refused only without a manifest, when there is nothing to take away.
        let _ = self.order(mesh::Command::Leave);
        self.leaving = Some(Leaving { answer, until: now().at + LEAVE_WITHIN, alone: None });
        None
    }

    async fn flush(&mut self) -> Ended {
        // Packets that are led into the device need its policies.
        self.carrier.unroute();
        tokio::time::sleep(UNDER_WAY).await;
        let _ = self.order(mesh::Command::Flush);
        self.carry_out();
        if let Some(leaving) = self.leaving.take() {
            let _ = leaving.answer.send(Ok(json!({ "stopped": true, "flushed": true })));
        }
        Ended::Flushed
    }

    fn report(&mut self, event: Event) {
        log::event(&event);
        self.traces.event(&self.mesh, &event);
        // Nobody listens most of the time.
        let _ = self.events.send(event);
    }
}

/// Both clocks, read together.
pub fn now() -> Now {
    Now { at: Instant::from_nanos(linux::clock::boot_clock()), unix: linux::clock::unix_now() }
}

async fn sleep_until(until: Instant) {
    if until == Instant::NEVER {
        std::future::pending::<()>().await;
    }
    let left = until.since(now().at);
    // An hour at most: the boot clock goes on during suspend, tokio's does not.
    tokio::time::sleep(left.min(Duration::from_secs(3600))).await;
}

fn packet(query: &ExplainQuery) -> PacketInfo {
    let addresses: (IpAddr, IpAddr) = (query.src, query.dst);
    PacketInfo {
        src: addresses.0,
        dst: addresses.1,
        protocol: query.protocol,
        src_port: None,
        dst_port: query.port,
    }
}

fn metrics(mesh: &Mesh, refused: u64) -> Value {
    let mut samples = mesh.metrics(now());
    samples.push(mesh::metrics::Sample {
        name: "warren_ike_datagrams_refused_total",
        help: "IKE datagrams dropped because too many came at once, or too long ones",
        counter: true,
        labels: Vec::new(),
        value: refused as f64,
    });
    Value::Array(
        samples
            .iter()
            .map(|s| json!({ "name": s.name, "help": s.help, "counter": s.counter, "labels": s.labels, "value": s.value }))
            .collect(),
    )
}

fn to_json(value: &impl serde::Serialize) -> Answer {
    serde_json::to_value(value).map_err(Refused::because)
}
