//! Message ids, retransmission and repeats: a window of one in either direction (RFC 7296 2.1, 2.2, 2.3).

use std::time::Duration;

use ipsec::Instant;

use crate::config::Retransmit;

/// The window of one IKE SA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Window {
    next_out: Option<u32>,
    outstanding: Option<Outstanding>,
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
    /// From the last send to the response; `None` if there was more than one send (Karn's rule).
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
    /// A new IKE SA's: requests of both sides count from `first` (0; of a rekeyed SA 0 as well, RFC 7296 2.18).
    pub fn new() -> Self {
        todo!()
    }

    /// A known state: the id of this host's next request, the id expected from the peer.
    pub fn resume(next_out: u32, expected_in: u32) -> Self {
        let _ = (next_out, expected_in);
        todo!()
    }

    /// The id of this host's next request; `None` while one is outstanding, or when ids are used up (RFC 7296 2.2: the SA must be closed).
    pub fn next_id(&self) -> Option<u32> {
        todo!()
    }

    /// Whether all ids are used up.
    pub fn exhausted(&self) -> bool {
        todo!()
    }

    /// The id of the outstanding request.
    pub fn outstanding(&self) -> Option<u32> {
        todo!()
    }

    /// The id that the peer's next request must have.
    pub fn expected_in(&self) -> u32 {
        self.expected_in
    }

    /// Notes that the request `next_id` was sent at `now`, as these datagrams. Does nothing while one is outstanding.
    pub fn sent(&mut self, now: Instant, messages: Vec<Vec<u8>>, schedule: Retransmit) {
        let _ = (now, messages, schedule);
        todo!()
    }

    /// Replaces the outstanding request by another under the same id, its timer anew: IKE_SA_INIT with a cookie or another KE.
    pub fn replace(&mut self, now: Instant, messages: Vec<Vec<u8>>) {
        let _ = (now, messages);
        todo!()
    }

    /// A verified response came: frees the window. `None` if it answers nothing.
    pub fn answered(&mut self, now: Instant, id: u32) -> Option<Answered> {
        let _ = (now, id);
        todo!()
    }

    /// Gives the outstanding request up.
    pub fn forget(&mut self) {
        self.outstanding = None;
    }

    /// What an inbound request's id means.
    pub fn classify(&self, id: u32) -> Inbound<'_> {
        let _ = (id, &self.last_in, &self.next_out);
        todo!()
    }

    /// Takes the request `expected_in`, after it was verified: its repeats are ignored until `responded`.
    pub fn begin(&mut self) {
        todo!()
    }

    /// Stores the response of the request begun last, for its repeats.
    pub fn responded(&mut self, messages: Vec<Vec<u8>>) {
        let _ = messages;
        todo!()
    }

    /// When `due` will have something.
    pub fn next_timeout(&self) -> Option<Instant> {
        todo!()
    }

    /// What the timer says at `now`.
    pub fn due(&mut self, now: Instant) -> Due<'_> {
        let _ = now;
        todo!()
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}
