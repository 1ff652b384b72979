//! Who wins when both sides start the same, and what to answer in the meantime (RFC 7296 2.8, 2.25).

use ipsec::Instant;

/// What this host does with a child SA at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChildDoing {
    /// There is no such child SA.
    Absent,
    /// There is none, but one is being created whose response is still to come: it may be that one.
    Coming,
    /// Nothing.
    Idle,
    /// Rekeying it: own request sent, no response yet (or its outcome not settled).
    Rekeying,
    /// Closing it: own Delete sent, or about to be.
    Closing,
}

/// What this host does with the IKE SA at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IkeDoing {
    /// Nothing.
    Idle,
    /// Rekeying it: own request sent, no response yet.
    Rekeying,
    /// Closing it, or it is replaced already whether or not the Delete is sent (RFC 7296 2.8.2).
    Closing,
}

/// What the peer asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// A new child SA.
    CreateChild,
    /// To rekey a child SA, with what this host does with it.
    RekeyChild(ChildDoing),
    /// To close a child SA, with what this host does with it.
    DeleteChild(ChildDoing),
    /// To rekey the IKE SA.
    RekeyIke,
    /// To close the IKE SA.
    DeleteIke,
}

/// What is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// As usual; a Delete is answered with a Delete.
    Usual,
    /// As usual; a simultaneous rekey is on, the redundant SA goes later by the nonces ([`loser`]).
    UsualSimultaneous,
    /// As usual, and this host's own request about the IKE SA is forgotten.
    UsualForgetOwn,
    /// An answer without a Delete payload for this SPI (RFC 7296 1.4.1).
    WithoutDelete,
    /// TEMPORARY_FAILURE.
    TemporaryFailure,
    /// CHILD_SA_NOT_FOUND.
    ChildSaNotFound,
}

/// What to answer. `child_busy`: whether this host is creating, rekeying or closing any child SA of the IKE SA.
pub fn reply(request: Request, ike: IkeDoing, child_busy: bool) -> Reply {
    use Request as R;
    match (request, ike) {
        // RFC 7296 2.25.2. A closing SA takes no new work.
        (R::DeleteIke, IkeDoing::Idle) => Reply::Usual,
        (R::DeleteIke, IkeDoing::Rekeying | IkeDoing::Closing) => Reply::UsualForgetOwn,
        (R::RekeyIke, IkeDoing::Closing) => Reply::TemporaryFailure,
        (R::RekeyIke, IkeDoing::Rekeying) => Reply::UsualSimultaneous,
        (R::RekeyIke, IkeDoing::Idle) if child_busy => Reply::TemporaryFailure,
        (R::RekeyIke, IkeDoing::Idle) => Reply::Usual,
        (R::CreateChild | R::RekeyChild(_), IkeDoing::Rekeying | IkeDoing::Closing) => {
            Reply::TemporaryFailure
        }
        (R::CreateChild, IkeDoing::Idle) => Reply::Usual,
        (R::RekeyChild(child), IkeDoing::Idle) => reply_rekey_child(child),
        (R::DeleteChild(child), _) => reply_delete_child(child),
    }
}

/// The nonces of one exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nonces<'a> {
    /// The initiator's.
    pub ni: &'a [u8],
    /// The responder's.
    pub nr: &'a [u8],
}

impl<'a> Nonces<'a> {
    /// The one that counts.
    pub fn lower(self) -> &'a [u8] {
        self.ni.min(self.nr)
    }
}

/// One of two exchanges that did the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// That which this host initiated.
    Own,
    /// That which the peer initiated.
    Peer,
}

/// Whose SA is redundant: that made with the lowest of the four nonces; its initiator closes it (RFC 7296 2.8.1, 2.8.2).
pub fn loser(own: Nonces<'_>, peer: Nonces<'_>) -> Side {
    // Slices compare octet by octet, and one that ends first is the lower: the RFC's order.
    if own.lower() <= peer.lower() { Side::Own } else { Side::Peer }
}

/// What this host closes after a simultaneous rekey of a child SA or of the IKE SA, once both exchanges are through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settlement {
    /// The SA that stays; of an IKE SA: that inherits the children.
    pub keep: Side,
    /// Close the SA that was made by this host's own exchange; the peer closes the old one.
    pub close_own: bool,
    /// Close the old SA; the peer closes its own redundant one.
    pub close_old: bool,
}

/// Settles a simultaneous rekey.
pub fn settle(own: Nonces<'_>, peer: Nonces<'_>) -> Settlement {
    match loser(own, peer) {
        Side::Own => Settlement { keep: Side::Peer, close_own: true, close_old: false },
        Side::Peer => Settlement { keep: Side::Own, close_own: false, close_old: true },
    }
}

/// Which of two IKE SAs stays when both hosts initiated at once: the RFC has no rule of its own, that of a
/// simultaneous rekey serves, by the [lower](Nonces::lower) nonces; the initiator of the redundant one deletes it.
pub fn duplicate(own: &[u8], peer: &[u8]) -> Side {
    if own <= peer { Side::Peer } else { Side::Own }
}

/// Whether two IKE SAs of one pair of hosts were being negotiated at the same time, each from its beginning
/// until it was established. If not, the newer one is no accident: it is meant to replace the older one
/// (reauthentication, RFC 7296 2.8.3), and its initiator deletes that.
pub fn simultaneous(a: (Instant, Instant), b: (Instant, Instant)) -> bool {
    a.0 < b.1 && b.0 < a.1
}

/// RFC 7296 2.25.1.
fn reply_rekey_child(child: ChildDoing) -> Reply {
    match child {
        ChildDoing::Absent => Reply::ChildSaNotFound,
        ChildDoing::Idle => Reply::Usual,
        ChildDoing::Rekeying => Reply::UsualSimultaneous,
        ChildDoing::Closing | ChildDoing::Coming => Reply::TemporaryFailure,
    }
}

/// RFC 7296 2.25.1; holds while the IKE SA is rekeyed as well (2.25.2).
fn reply_delete_child(child: ChildDoing) -> Reply {
    match child {
        ChildDoing::Absent | ChildDoing::Coming | ChildDoing::Closing => Reply::WithoutDelete,
        ChildDoing::Idle | ChildDoing::Rekeying => Reply::Usual,
    }
}
