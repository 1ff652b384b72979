//! Who was asked for a cookie a moment ago.
//!
//! A first request may come twice: sent again, or copied on its way. Were the second let in without the cookie that the first was
//! asked for, as there is less to do by then, its sender, who signs the request that has one, could not prove himself
//! (RFC 7296 2.15: each signs its last first message).

use std::collections::VecDeque;
use std::net::SocketAddr;

use wire::message::IkeSpi;

/// So many are remembered. Who asks for more has much to do, and goes on asking for cookies.
const MOST: usize = 256;

/// By the address and the SPI of the initiator, the latest last.
#[derive(Clone, Default)]
pub(super) struct Asked(VecDeque<(SocketAddr, IkeSpi)>);

impl Asked {
    /// This one is asked now.
    pub(super) fn note(&mut self, remote: SocketAddr, spi_i: IkeSpi) {
        if self.has(remote, spi_i) {
            return;
        }
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back((remote, spi_i));
    }

    /// Whether this one was.
    pub(super) fn has(&self, remote: SocketAddr, spi_i: IkeSpi) -> bool {
        self.0.contains(&(remote, spi_i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten() {
        let remote = SocketAddr::from(([10, 0, 0, 1], 500));
        let mut asked = Asked::default();
        for n in 0..=MOST as u64 {
            asked.note(remote, IkeSpi(n));
            asked.note(remote, IkeSpi(n));
        }
        assert_eq!([0, 1, MOST as u64].map(|n| asked.has(remote, IkeSpi(n))), [false, true, true]);
        assert_eq!(asked.0.len(), MOST);
    }
}
