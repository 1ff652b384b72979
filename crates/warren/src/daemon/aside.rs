//! Answers to first requests leave by sockets of their own.
//!
//! Anybody can ask for them, and from an address where nobody is: the kernel then keeps them for seconds while it looks for a
//! neighbour, at the expense of the socket that sent them. What other peers are to hear must not wait for that room.

use ike::endpoint::Datagram;
use linux::raw::{Ip, RawIp};
use linux::userspace::MARK;
use wire::registry::ExchangeType;

use super::intake::header;

/// Sockets for whole packets, one for each IP version that there is.
pub struct Aside(Vec<(Ip, RawIp)>);

impl Aside {
    /// Opens them in this thread's network namespace. What is missing is missed by nobody: there are the ordinary sockets.
    pub fn open() -> Self {
        let open = |ip| match RawIp::open(ip, MARK) {
            Ok(socket) => Some((ip, socket)),
            Err(error) => {
                tracing::debug!("answers to first requests share a socket with other IKE: {error}");
                None
            }
        };
        Self([Ip::V4, Ip::V6].into_iter().filter_map(open).collect())
    }

    /// Sends an answer to a first request; false if it is none, or must go the ordinary way. One for which there is no room
    /// is dropped: whoever asked asks again.
    pub fn takes(&self, Datagram { local, remote, bytes }: &Datagram) -> bool {
        let answers = header(local.port(), bytes).is_some_and(|header| {
            header.exchange == ExchangeType::IKE_SA_INIT && header.flags.response
        });
        if !answers || local.ip().is_unspecified() {
            return false;
        }
        let socket = self.0.iter().find(|(ip, _)| *ip == Ip::of(remote.ip()));
        let packet = ipsec::packet::udp(*local, *remote, bytes);
        let (Some((_, socket)), Some(packet)) = (socket, packet) else { return false };
        // What is too long is to go in pieces.
        let mut whole = true;
        socket.send_now(&[(remote.ip(), &packet)], |_, errno| {
            whole = errno != linux::errno::Errno::EMSGSIZE;
        });
        whole
    }
}
