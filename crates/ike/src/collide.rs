//! Who wins when both sides start the same, and what to answer in the meantime (RFC 7296 2.8, 2.25).

/// What this host does with a child SA at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChildDoing {
    /// There is no such child SA.
    Absent,
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
    let _ = (request, ike, child_busy);
    todo!()
}

/// The nonces of one exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nonces<'a> {
    /// The initiator's.
    pub ni: &'a [u8],
    /// The responder's.
    pub nr: &'a [u8],
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
    let _ = (own, peer);
    todo!()
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
    let _ = (own, peer);
    todo!()
}

/// Which of two IKE SAs stays when both hosts initiated at once: the RFC has no rule of its own, that of a
/// simultaneous rekey serves; the initiator of the redundant one deletes it.
pub fn duplicate(own: Nonces<'_>, peer: Nonces<'_>) -> Side {
    let _ = (own, peer);
    todo!()
}

/// What an initiator does with a refusal of its CREATE_CHILD_SA request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// TEMPORARY_FAILURE: try again after a while (RFC 7296 2.25).
    RetryLater,
    /// CHILD_SA_NOT_FOUND: forget the old child silently; make a new one from scratch unless the peer replaced it meanwhile.
    ForgetOld {
        /// Whether a new one is to be made.
        create_anew: bool,
    },
}
