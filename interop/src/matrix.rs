//! The table: which peers, where, and what is tried with each.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::extension::Extension;

/// A daemon, by the Debian release that it comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Peer {
    /// 5.9.
    BookwormStrongswan,
    /// 6.0.
    TrixieStrongswan,
    /// 6.1: the first with ML-KEM.
    ForkyStrongswan,
    /// 4.10.
    BookwormLibreswan,
    /// 5.
    TrixieLibreswan,
}

impl Peer {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::BookwormStrongswan,
        Self::TrixieStrongswan,
        Self::ForkyStrongswan,
        Self::BookwormLibreswan,
        Self::TrixieLibreswan,
    ];

    /// Its folder, as `interop/fetch.sh` calls it.
    pub fn folder(self) -> &'static str {
        match self {
            Self::BookwormStrongswan => "bookworm-strongswan",
            Self::TrixieStrongswan => "trixie-strongswan",
            Self::ForkyStrongswan => "forky-strongswan",
            Self::BookwormLibreswan => "bookworm-libreswan",
            Self::TrixieLibreswan => "trixie-libreswan",
        }
    }

    /// strongSwan, else libreswan.
    pub fn is_strongswan(self) -> bool {
        matches!(self, Self::BookwormStrongswan | Self::TrixieStrongswan | Self::ForkyStrongswan)
    }
}

/// Where a cell runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// On this machine: both sides bring their own ESP.
    Native,
    /// In the test machine: both sides use the kernel's.
    Vm,
}

/// How packets are wrapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// RFC 4301 4.1.
    Transport,
    /// RFC 4301 4.1.
    Tunnel,
}

/// Version of IP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How both sides prove who they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// RSA-3072 certificates of one CA.
    Rsa,
    /// P-256 certificates of one CA.
    Ecdsa,
    /// A pre-shared key.
    Psk,
    /// RSA-4096, with two intermediate CAs: IKE_AUTH of some 6 kB.
    Chain,
}

/// Who sends the first message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Initiator {
    /// Warren.
    Warren,
    /// The peer.
    Peer,
    /// Both at the same time.
    Both,
}

/// Who is behind a NAT.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Nat {
    /// Warren.
    Us,
    /// The peer.
    Them,
}

/// What is done with the tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Play {
    /// Traffic, rekeys and deletes from both sides.
    Whole,
    /// The same, through a NAT.
    Nat(Nat),
    /// The peer's certificates are checked anew, again and again.
    Reauth,
    /// The peer dies, and comes back without a memory.
    Dead,
    /// Both hosts get other addresses, one after the other.
    Move,
    /// As `Whole`, with an extension that both insist on.
    With(Extension),
    /// The peer sends the tunnel to another gateway.
    Redirect,
}

/// Algorithms, in the syntax of strongSwan and of libreswan.
#[derive(Debug, PartialEq, Eq)]
pub struct Suite {
    /// What it is for.
    pub name: &'static str,
    /// For IKE.
    pub ike: &'static str,
    /// For ESP; with a key exchange method: perfect forward secrecy.
    pub esp: &'static str,
    /// For IKE, as libreswan writes it.
    pub libreswan_ike: &'static str,
    /// For ESP, as libreswan writes it.
    pub libreswan_esp: &'static str,
}

/// The manifest's defaults.
pub const DEFAULT: Suite = Suite {
    name: "default",
    ike: "aes128-sha256-modp2048",
    esp: "aes128gcm16",
    libreswan_ike: "aes128-sha2_256;modp2048",
    libreswan_esp: "aes_gcm128",
};
/// AES-256-GCM throughout.
pub const ECP384: Suite = Suite {
    name: "ecp384",
    ike: "aes256gcm16-prfsha384-ecp384",
    esp: "aes256gcm16-ecp384",
    libreswan_ike: "aes_gcm256-sha2_384;dh20",
    libreswan_esp: "aes_gcm256;dh20",
};
/// Without AES.
pub const X25519: Suite = Suite {
    name: "x25519",
    ike: "chacha20poly1305-prfsha256-x25519",
    esp: "chacha20poly1305-x25519",
    libreswan_ike: "aes_gcm256-sha2_512;dh31",
    libreswan_esp: "chacha20_poly1305;dh31",
};
/// Encryption and integrity apart.
pub const CBC: Suite = Suite {
    name: "cbc",
    ike: "aes256-sha512-modp3072",
    esp: "aes256-sha256-modp3072",
    libreswan_ike: "aes256-sha2_512;modp3072",
    libreswan_esp: "aes256-sha2_256;modp3072",
};
/// Two key exchanges, the second against quantum computers (RFC 9370).
pub const MLKEM: Suite = Suite {
    name: "mlkem",
    ike: "aes256gcm16-prfsha384-x25519-ke1_mlkem768",
    esp: "aes256gcm16-x25519-ke1_mlkem768",
    libreswan_ike: "",
    libreswan_esp: "",
};
/// Those that every peer can do.
const SUITES: [&Suite; 4] = [&DEFAULT, &ECP384, &X25519, &CBC];

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// With whom.
    pub peer: Peer,
    /// Where.
    pub place: Place,
    /// Transport or tunnel.
    pub mode: Mode,
    /// IPv4 or IPv6.
    pub family: Family,
    /// By what proof.
    pub auth: Auth,
    /// With which algorithms.
    pub suite: &'static Suite,
    /// Who begins.
    pub initiator: Initiator,
    /// What is done.
    pub play: Play,
    /// It belongs to the part that `./x test` runs.
    pub ci: bool,
}

impl Cell {
    /// Who is behind a NAT, if anybody is.
    pub fn nat(&self) -> Option<Nat> {
        match self.play {
            Play::Nat(nat) => Some(nat),
            _ => None,
        }
    }

    /// The IKE suite in Warren's syntax, such as the peer can do it.
    pub fn ike(&self) -> &'static str {
        // libreswan has ChaCha20-Poly1305 for ESP alone.
        if !self.peer.is_strongswan() && self.suite == &X25519 {
            return "aes256gcm16-prfsha512-x25519";
        }
        self.suite.ike
    }
}

/// What `--only` looks at, and the logs are called.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let play = match self.play {
            Play::Whole => "whole",
            Play::Nat(Nat::Us) => "nat-us",
            Play::Nat(Nat::Them) => "nat-them",
            Play::Reauth => "reauth",
            Play::Dead => "dead",
            Play::Move => "move",
            Play::With(Extension::Ppk) => "ppk",
            Play::With(Extension::Childless) => "childless",
            Play::Redirect => "redirect",
        };
        write!(
            f,
            "{} {} {} {} {} {} {} {play}",
            self.peer.folder(),
            lower(&self.place),
            lower(&self.mode),
            lower(&self.family),
            lower(&self.auth),
            self.suite.name,
            lower(&self.initiator),
        )
    }
}

/// A name as it is written in tables.
pub fn lower(value: &impl fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

/// All cells.
pub fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for (number, peer) in Peer::ALL.into_iter().enumerate() {
        if peer.is_strongswan() {
            native(peer, &mut cells);
            extensions(peer, &mut cells);
        }
        kernel(peer, number, &mut cells);
        special(peer, &mut cells);
    }
    ml_kem(&mut cells);
    moves(&mut cells);
    cells
}

/// Tunnels with peers that have MOBIKE, whoever began them, and with gateways that redirect. With the kernel's ESP, strongSwan
/// gives the selectors of a moved host the new address, which nobody has negotiated: there is nothing to be played.
fn moves(cells: &mut Vec<Cell>) {
    let plays = [
        (Initiator::Warren, Play::Move),
        (Initiator::Peer, Play::Move),
        (Initiator::Warren, Play::Redirect),
    ];
    for peer in [Peer::BookwormStrongswan, Peer::TrixieStrongswan, Peer::ForkyStrongswan] {
        cells.extend(plays.map(|(initiator, play)| Cell {
            peer,
            place: Place::Native,
            mode: Mode::Tunnel,
            family: Family::V4,
            auth: Auth::Psk,
            suite: &DEFAULT,
            initiator,
            play,
            ci: false,
        }));
    }
}

/// With the one peer that has it.
fn ml_kem(cells: &mut Vec<Cell>) {
    let base = Cell {
        peer: Peer::ForkyStrongswan,
        place: Place::Vm,
        mode: Mode::Transport,
        family: Family::V4,
        auth: Auth::Ecdsa,
        suite: &MLKEM,
        initiator: Initiator::Warren,
        play: Play::Whole,
        ci: true,
    };
    let native = Cell { place: Place::Native, mode: Mode::Tunnel, ..base };
    let rsa = Cell { mode: Mode::Tunnel, family: Family::V6, auth: Auth::Rsa, ci: false, ..base };
    for initiator in [Initiator::Warren, Initiator::Peer] {
        cells.extend([native, base, rsa].map(|cell| Cell { initiator, ..cell }));
    }
    cells.push(Cell { initiator: Initiator::Both, auth: Auth::Psk, ci: false, ..base });
}

/// Both bring their own ESP, in a tunnel in UDP, which is all that strongSwan's can do.
fn native(peer: Peer, cells: &mut Vec<Cell>) {
    let ci = peer == Peer::BookwormStrongswan;
    for suite in SUITES {
        for auth in [Auth::Rsa, Auth::Psk] {
            for initiator in [Initiator::Warren, Initiator::Peer] {
                cells.push(Cell {
                    peer,
                    place: Place::Native,
                    mode: Mode::Tunnel,
                    family: Family::V4,
                    auth,
                    suite,
                    initiator,
                    play: Play::Whole,
                    ci: ci && suite == &DEFAULT,
                });
            }
        }
    }
}

/// What strongSwan can do of Warren's extensions.
fn extensions(peer: Peer, cells: &mut Vec<Cell>) {
    for extension in Extension::ALL {
        for initiator in [Initiator::Warren, Initiator::Peer] {
            cells.push(Cell {
                peer,
                place: Place::Native,
                mode: Mode::Tunnel,
                family: Family::V4,
                auth: Auth::Rsa,
                suite: &X25519,
                initiator,
                play: Play::With(extension),
                ci: false,
            });
        }
    }
}

/// Every combination of mode, version of IP, proof and initiator; the suites take turns. Every seventh belongs to CI:
/// all values of each occur.
fn kernel(peer: Peer, number: usize, cells: &mut Vec<Cell>) {
    let (mut turn, mut index) = (number, number);
    for auth in [Auth::Rsa, Auth::Ecdsa, Auth::Psk] {
        for mode in [Mode::Transport, Mode::Tunnel] {
            for family in [Family::V4, Family::V6] {
                for initiator in [Initiator::Warren, Initiator::Peer] {
                    let suite = SUITES[turn % SUITES.len()];
                    cells.push(Cell {
                        peer,
                        place: Place::Vm,
                        mode,
                        family,
                        auth,
                        suite,
                        initiator,
                        play: Play::Whole,
                        ci: index.is_multiple_of(13),
                    });
                    turn += 1;
                    index += 1;
                }
                // So that no suite is always with the same initiator.
                turn += 1;
            }
        }
    }
}

/// What needs a stage of its own.
fn special(peer: Peer, cells: &mut Vec<Cell>) {
    let base = Cell {
        peer,
        place: Place::Vm,
        mode: Mode::Transport,
        family: Family::V4,
        auth: Auth::Ecdsa,
        suite: &DEFAULT,
        initiator: Initiator::Warren,
        play: Play::Whole,
        ci: matches!(peer, Peer::TrixieStrongswan | Peer::TrixieLibreswan),
    };
    let them = Cell { initiator: Initiator::Peer, ..base };
    // The part for CI is to stay short.
    let (nat, reauth) = (Cell { ci: false, ..base }, Cell { ci: false, ..them });
    cells.extend([
        Cell { auth: Auth::Chain, ..base },
        Cell { auth: Auth::Chain, family: Family::V6, ..them },
        Cell { initiator: Initiator::Both, ci: peer == Peer::TrixieStrongswan, ..base },
        Cell { play: Play::Nat(Nat::Us), ..nat },
        Cell { play: Play::Nat(Nat::Us), mode: Mode::Tunnel, ..nat },
        Cell { play: Play::Nat(Nat::Them), ..reauth },
        Cell { play: Play::Dead, ..base },
        Cell { play: Play::Reauth, ..reauth },
    ]);
}
