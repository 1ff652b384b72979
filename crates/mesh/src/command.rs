//! What an operator can ask of one tunnel.

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Which peer: its address, its name from the manifest, or an SPI of one of its SAs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// By address.
    Address(IpAddr),
    /// By the name that the manifest gives it.
    Name(String),
    /// By an SPI: 8 hexadecimal digits of an ESP SA or 16 of an IKE SA, `0x` before it or not.
    Spi(u64),
}

/// A command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Wanted up: start now, and forget earlier failures.
    Up(Target),
    /// Wanted down: remove the tunnel in any state, stop retries, refuse the peer until `Up`.
    Down(Target),
    /// Down, then up.
    Restart(Target),
    /// New keys for the IKE SA and its child SAs, make before break.
    Rekey(Target),
    /// Another tunnel instead of this one, identities proven anew, make before break.
    Reauth(Target),
    /// The same for all tunnels, spread over time.
    ReauthAll,
    /// Takes all tunnels down in agreement with the peers, before [`Command::Flush`]: nothing is sent through them any
    /// more, while what the peers have sent already still comes in. Policies stay.
    Leave,
    /// Takes all tunnels and all policies down: what `stop --flush` asks for. Traffic is in the clear after it.
    Flush,
}

/// What an operator has said of a peer: it holds until the contrary is said, over reloads and restarts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Always a tunnel.
    Up,
    /// No tunnel.
    Down,
}

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Reply {
    /// Whom it concerned; `None`: all.
    pub peer: Option<IpAddr>,
    /// In words.
    pub text: String,
}

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No manifest yet.
    #[error("no manifest is loaded yet")]
    NoManifest,
    /// The address is in no protected subnet.
    #[error("{0} is not a peer: it lies in no protected subnet (see `warren explain`)")]
    NotAPeer(IpAddr),
    /// Nothing of that name.
    #[error("no peer is named `{0}`; `warren status` lists them, and an address works too")]
    UnknownName(String),
    /// Nothing with that SPI.
    #[error("no SA has the SPI {0:#x}; `warren status --json` lists them")]
    UnknownSpi(u64),
    /// There is no tunnel to rekey or to replace.
    #[error("{0} is not up; `warren up {0}` starts it")]
    NotUp(IpAddr),
    /// The table of peers is full.
    #[error("the table of peers is full ({0})")]
    Full(usize),
}

impl Command {
    /// Whom it concerns; `None`: all.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::Up(t) | Self::Down(t) | Self::Restart(t) | Self::Rekey(t) | Self::Reauth(t) => {
                Some(t)
            }
            Self::Leave | Self::Flush | Self::ReauthAll => None,
        }
    }
}

impl FromStr for Target {
    type Err = Infallible;

    /// An address if it reads as one, else an SPI (8 or 16 hexadecimal digits, or `0x…`), else a name.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        let digits = text.strip_prefix("0x");
        let plain = (text.len() == 8 || text.len() == 16).then_some(text);
        let is_hex = |d: &&str| !d.is_empty() && d.bytes().all(|b| b.is_ascii_hexdigit());
        match digits.or(plain).filter(is_hex).and_then(|d| u64::from_str_radix(d, 16).ok()) {
            Some(spi) => Ok(Self::Spi(spi)),
            None => Ok(Self::Name(text.to_owned())),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(a) => write!(f, "{a}"),
            Self::Name(n) => f.write_str(n),
            Self::Spi(s) => write!(f, "{s:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn targets() {
        let read = |t: &str| t.parse::<Target>().unwrap();
        assert_eq!(read("10.0.0.1"), Target::Address([10, 0, 0, 1].into()));
        assert_eq!(read("fd00::1"), Target::Address("fd00::1".parse().unwrap()));
        assert_eq!(read("c0ffee00"), Target::Spi(0xc0ff_ee00));
        assert_eq!(read("0x1f"), Target::Spi(0x1f));
        assert_eq!(read("0x"), Target::Name("0x".into()));
        assert_eq!(read("web-1"), Target::Name("web-1".into()));
        assert_eq!(read("deadbeefdeadbeefdead"), Target::Name("deadbeefdeadbeefdead".into()));
    }
}
