//! IKE from the wire to the loop. First requests can be sent by anybody, in any number: they wait in a queue of their
//! own, behind everything else, so that a flood of them delays no exchange that is under way. Nor does a flood of
//! anything else keep them waiting for good: after so many others one of them is taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ike::endpoint::Datagram;
use linux::userspace::{IkeDatagram, Upcalls};
use tokio::sync::mpsc::error::{TryRecvError, TrySendError};
use tokio::sync::{Notify, mpsc};
use wire::message::Header;
use wire::registry::ExchangeType;

/// Datagrams that may wait for the loop; what comes beyond that is dropped, and its sender sends again.
const OTHERS: usize = 4096;
/// First requests that may wait: what honest hosts send in a moment.
const FIRST_REQUESTS: usize = 2048;
/// So many others at most before a first request that waits.
const OTHERS_IN_A_ROW: u32 = 16;
/// Of one IKE datagram, in bytes; ten large certificates fit.
const LONGEST: usize = 16 << 10;
/// The port whose datagrams have no non-ESP marker (RFC 3948 2).
const IKE: u16 = 500;

/// The loop's end.
pub struct Intake {
    others: mpsc::Receiver<Datagram>,
    first_requests: mpsc::Receiver<Datagram>,
    /// Others since the last first request.
    in_a_row: u32,
    refused: Arc<AtomicU64>,
}

/// The end of the threads that receive.
#[derive(Clone)]
pub struct ToLoop {
    others: mpsc::Sender<Datagram>,
    first_requests: mpsc::Sender<Datagram>,
    wake: Arc<Notify>,
    refused: Arc<AtomicU64>,
}

/// Both ends; `wake` is told of the data plane's events.
pub fn open(wake: Arc<Notify>) -> (ToLoop, Intake) {
    let (to_others, others) = mpsc::channel(OTHERS);
    let (to_first, first_requests) = mpsc::channel(FIRST_REQUESTS);
    let refused = Arc::new(AtomicU64::new(0));
    let to_loop =
        ToLoop { others: to_others, first_requests: to_first, wake, refused: refused.clone() };
    (to_loop, Intake { others, first_requests, in_a_row: 0, refused })
}

impl Intake {
    /// The next datagram; waits for one.
    pub async fn next(&mut self) -> Option<Datagram> {
        let (others, first_requests) = (&mut self.others, &mut self.first_requests);
        let (datagram, first) = if self.in_a_row < OTHERS_IN_A_ROW {
            tokio::select! {
                biased;
                datagram = others.recv() => (datagram, false),
                datagram = first_requests.recv() => (datagram, true),
            }
        } else {
            tokio::select! {
                biased;
                datagram = first_requests.recv() => (datagram, true),
                datagram = others.recv() => (datagram, false),
            }
        };
        self.count(first);
        datagram
    }

    /// The next datagram, if there is one.
    pub fn try_next(&mut self) -> Result<Datagram, TryRecvError> {
        let mut first = self.in_a_row >= OTHERS_IN_A_ROW;
        for _ in 0..2 {
            let queue = if first { &mut self.first_requests } else { &mut self.others };
            if let Ok(datagram) = queue.try_recv() {
                self.count(first);
                return Ok(datagram);
            }
            first = !first;
        }
        Err(TryRecvError::Empty)
    }

    fn count(&mut self, first: bool) {
        self.in_a_row = if first { 0 } else { self.in_a_row.saturating_add(1) };
    }

    /// Datagrams that were dropped before anybody looked at them.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }
}

impl Upcalls for ToLoop {
    fn ike(&self, IkeDatagram { local, remote, bytes }: IkeDatagram) {
        let queue = if is_first_request(local.port(), &bytes) {
            &self.first_requests
        } else {
            &self.others
        };
        let fits = bytes.len() <= LONGEST;
        let datagram = Datagram { local, remote, bytes };
        // Closed: the loop has ended.
        if !fits || matches!(queue.try_send(datagram), Err(TrySendError::Full(_))) {
            self.refused.fetch_add(1, Relaxed);
        }
    }

    fn events(&self) {
        self.wake.notify_one();
    }
}

fn is_first_request(port: u16, bytes: &[u8]) -> bool {
    header(port, bytes).is_some_and(|header| {
        header.exchange == ExchangeType::IKE_SA_INIT && !header.flags.response
    })
}

/// The header of an IKE message as a datagram from or to this port of ours carries it.
pub fn header(port: u16, bytes: &[u8]) -> Option<Header> {
    let message = match port {
        IKE => bytes,
        _ => bytes.strip_prefix(&wire::datagram::NON_ESP_MARKER)?,
    };
    Header::parse(message).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(port: u16, exchange: u8, flags: u8) -> IkeDatagram {
        let mut bytes = vec![0; 28];
        (bytes[18], bytes[19]) = (exchange, flags);
        if port != IKE {
            bytes.splice(..0, [0; 4]);
        }
        let [local, remote] = [port, 500].map(|port| ([10, 0, 0, 1], port).into());
        IkeDatagram { local, remote, bytes }
    }

    #[test]
    fn first_requests_wait_behind_everything_else() {
        let (to_loop, mut intake) = open(Arc::default());
        for (port, exchange, flags) in
            [(500, 34, 8), (4500, 34, 8), (500, 34, 0x20), (4500, 35, 8), (500, 37, 0)]
        {
            to_loop.ike(datagram(port, exchange, flags));
        }
        let mut order = Vec::new();
        while let Ok(datagram) = intake.try_next() {
            let at = if datagram.local.port() == IKE { 18 } else { 22 };
            order.push((datagram.local.port(), datagram.bytes[at], datagram.bytes[at + 1]));
        }
        let others = [(500, 34, 0x20), (4500, 35, 8), (500, 37, 0)];
        assert_eq!(order, [&others[..], &[(500, 34, 8), (4500, 34, 8)]].concat());
    }

    #[test]
    fn a_flood_of_others_does_not_keep_first_requests_waiting() {
        let (to_loop, mut intake) = open(Arc::default());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        (0..OTHERS).for_each(|_| to_loop.ike(datagram(500, 37, 0)));
        (0..3).for_each(|_| to_loop.ike(datagram(500, 34, 8)));
        let most = OTHERS_IN_A_ROW as usize;
        for turn in 1..=3 * (most + 1) {
            let taken = match turn % 2 {
                0 => intake.try_next().unwrap(),
                _ => runtime.block_on(intake.next()).unwrap(),
            };
            assert_eq!(taken.bytes[18] == 34, turn % (most + 1) == 0, "turn {turn}");
        }
        assert_eq!(intake.try_next().unwrap().bytes[18], 37);
    }

    #[test]
    fn a_flood_of_first_requests_takes_no_room_from_others() {
        let (to_loop, mut intake) = open(Arc::default());
        (0..3 * OTHERS).for_each(|_| to_loop.ike(datagram(500, 34, 8)));
        to_loop.ike(datagram(500, 35, 8));
        assert_eq!(intake.refused(), (3 * OTHERS - FIRST_REQUESTS) as u64);
        assert_eq!(intake.try_next().unwrap().bytes[18], 35);
        let mut long = datagram(500, 35, 8);
        long.bytes.resize(LONGEST + 1, 0);
        to_loop.ike(long);
        assert_eq!(intake.refused(), (3 * OTHERS - FIRST_REQUESTS) as u64 + 1);
    }
}
