//! Message ids, retransmission and repeats: a window of one in either direction (RFC 7296 2.1, 2.2, 2.3).

use std::time::Duration;

use ipsec::Instant;

use crate::config::Retransmit;

/// The window of one IKE SA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Window {
    next_out: Option<u32>,
    outstanding: Option<Box<Outstanding>>,
    expected_in: u32,
    last_in: LastIn,
}

/// A request of this host that has no response yet.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Outstanding {
    id: u32,
    messages: Vec<Vec<u8>>,
    schedule: Retransmit,
    first_sent: Instant,
    last_sent: Instant,
    wait: Duration,
    sends: u32,
}

/// The newest request of the peer.
#[derive(Clone, PartialEq, Eq, Debug)]
enum LastIn {
    None,
    InProgress,
    Answered(Vec<Vec<u8>>),
}

/// What an inbound request's message id means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inbound<'a> {
    /// The next one: open it, then [`Window::begin`].
    New,
    /// The last one again: send this again (its fragments, if several).
    Repeat(&'a [Vec<u8>]),
    /// The last one again, still being worked on: ignore it.
    InProgress,
    /// Neither: drop it.
    OutOfWindow,
}

/// A response that was waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answered {
    /// From send to response; `None` if there was more than one send (Karn's rule).
    pub rtt: Option<Duration>,
    /// Sends in all.
    pub tries: u32,
}

/// What the retransmission timer says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due<'a> {
    /// Nothing yet.
    Nothing,
    /// Send these again.
    Resend {
        /// The request, its fragments if several.
        messages: &'a [Vec<u8>],
        /// Which send this is; 2 is the first repetition.
        attempt: u32,
    },
    /// The peer is given up.
    GiveUp {
        /// Sends in all.
        tries: u32,
        /// From the first send to now.
        elapsed: Duration,
    },
}

impl Window {
    /// A new IKE SA's: requests of both sides count from 0 (RFC 7296 2.2, 2.18).
    pub fn new() -> Self {
        Self::resume(0, 0)
    }

    /// A known state: the id of this host's next request, the id expected from the peer.
    pub fn resume(next_out: u32, expected_in: u32) -> Self {
        Self { next_out: Some(next_out), outstanding: None, expected_in, last_in: LastIn::None }
    }

    /// As an earlier process left it: the two ids, the last response, the outstanding request, which is
    /// sent again at `now`.
    pub fn restore(
        (next_out, expected_in): (Option<u32>, u32),
        answer: Vec<Vec<u8>>,
        outstanding: Option<(u32, Vec<Vec<u8>>)>,
        now: Instant,
        schedule: Retransmit,
    ) -> Self {
        let last_in = if answer.is_empty() { LastIn::None } else { LastIn::Answered(answer) };
        let outstanding = outstanding
            .map(|(id, messages)| Box::new(Outstanding::new(id, now, messages, schedule)));
        Self { next_out, outstanding, expected_in, last_in }
    }

    /// What [`restore`](Self::restore) needs: the id after the newest request, the outstanding request, the
    /// id expected from the peer, the last response. A request of the peer that has no response yet was
    /// never received.
    #[expect(clippy::type_complexity, reason = "the window's parts, taken apart by one caller")]
    pub fn export(&self) -> (Option<u32>, Option<(u32, Vec<Vec<u8>>)>, u32, Vec<Vec<u8>>) {
        let sent = self.outstanding.as_ref().map(|o| (o.id, o.messages.clone()));
        let (expected_in, answer) = match &self.last_in {
            LastIn::None => (self.expected_in, Vec::new()),
            LastIn::InProgress => (self.expected_in.saturating_sub(1), Vec::new()),
            LastIn::Answered(messages) => (self.expected_in, messages.clone()),
        };
        (self.next_out, sent, expected_in, answer)
    }

    /// Changes whenever what `export` gives does.
    pub(crate) fn mark(&self) -> (Option<u32>, Option<u32>, u32, bool) {
        let working = self.last_in == LastIn::InProgress;
        (self.next_out, self.outstanding(), self.expected_in, working)
    }

    /// The id of this host's next request; `None` while one is outstanding, or when ids are used up (RFC 7296 2.2: the SA must be closed).
    pub fn next_id(&self) -> Option<u32> {
        if self.outstanding.is_some() { None } else { self.next_out }
    }

    /// Whether all ids of this host's requests are used up.
    pub fn exhausted(&self) -> bool {
        self.next_out.is_none()
    }

    /// The id of the outstanding request.
    pub fn outstanding(&self) -> Option<u32> {
        self.outstanding.as_ref().map(|request| request.id)
    }

    /// The outstanding request, its fragments if several.
    pub(crate) fn pending(&self) -> &[Vec<u8>] {
        self.outstanding.as_ref().map_or(&[], |request| &request.messages)
    }

    /// The id that the peer's next request must have.
    pub fn expected_in(&self) -> u32 {
        self.expected_in
    }

    /// Notes that the request `next_id` was sent at `now`, as these datagrams. Does nothing while one is outstanding.
    pub fn sent(&mut self, now: Instant, messages: Vec<Vec<u8>>, schedule: Retransmit) {
        let Some(id) = self.next_id() else { return };
        self.next_out = id.checked_add(1);
        self.outstanding = Some(Box::new(Outstanding::new(id, now, messages, schedule)));
    }

    /// Replaces the outstanding request by another under the same id, its timer anew: IKE_SA_INIT with a cookie or another KE.
    pub fn replace(&mut self, now: Instant, messages: Vec<Vec<u8>>) {
        if let Some(old) = self.outstanding.take() {
            self.outstanding =
                Some(Box::new(Outstanding::new(old.id, now, messages, old.schedule)));
        }
    }

    /// A verified response came: frees the window. `None` if it answers nothing.
    pub fn answered(&mut self, now: Instant, id: u32) -> Option<Answered> {
        let request = self.outstanding.take_if(|request| request.id == id)?;
        let rtt = (request.sends == 1).then(|| now.since(request.first_sent));
        Some(Answered { rtt, tries: request.sends })
    }

    /// Gives the outstanding request up; its id is not used again.
    pub fn forget(&mut self) {
        self.outstanding = None;
    }

    /// What an inbound request's id means.
    pub fn classify(&self, id: u32) -> Inbound<'_> {
        if id == self.expected_in {
            return Inbound::New;
        }
        let last = id.checked_add(1) == Some(self.expected_in);
        match &self.last_in {
            LastIn::InProgress if last => Inbound::InProgress,
            LastIn::Answered(messages) if last => Inbound::Repeat(messages),
            _ => Inbound::OutOfWindow,
        }
    }

    /// Takes the request `expected_in`, after it was verified: its repeats are ignored until `responded`.
    pub fn begin(&mut self) {
        // The last id of all is taken again and again rather than wrapped; the SA is closed long before.
        self.expected_in = self.expected_in.saturating_add(1);
        self.last_in = LastIn::InProgress;
    }

    /// Stores the response of the request begun last, for its repeats.
    pub fn responded(&mut self, messages: Vec<Vec<u8>>) {
        self.last_in = LastIn::Answered(messages);
    }

    /// When `due` will have something.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.outstanding.as_ref().map(|request| request.due_at())
    }

    /// What the timer says at `now`. With `Resend` the wait for the next one begins.
    pub fn due(&mut self, now: Instant) -> Due<'_> {
        let Some(request) = self.outstanding.as_mut().filter(|r| now >= r.due_at()) else {
            return Due::Nothing;
        };
        if request.sends >= request.schedule.tries {
            return Due::GiveUp { tries: request.sends, elapsed: now.since(request.first_sent) };
        }
        request.resend(now);
        Due::Resend { messages: &request.messages, attempt: request.sends }
    }
}

impl Outstanding {
    fn new(id: u32, now: Instant, messages: Vec<Vec<u8>>, schedule: Retransmit) -> Self {
        let wait = schedule.first.min(schedule.cap);
        Self { id, messages, schedule, first_sent: now, last_sent: now, wait, sends: 1 }
    }

    fn due_at(&self) -> Instant {
        self.last_sent + self.wait
    }

    fn resend(&mut self, now: Instant) {
        self.sends = self.sends.saturating_add(1);
        self.last_sent = now;
        let grown = self.wait.saturating_mul(self.schedule.factor_percent) / 100;
        // Never shorter: a factor below 100 would end in a flood.
        self.wait = grown.max(self.wait).min(self.schedule.cap);
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}
