//! Additional key exchanges (RFC 9370): which ones two proposals agree on, and in which order they are done.

use crypto::Provider;
use wire::proposal::{Proposal, Transform};
use wire::registry::{Ke, TransformType};

/// The transform types of additional key exchanges, in the order in which they are done (RFC 9370 2.2.1).
pub const KINDS: [TransformType; 7] = [
    TransformType::ADDKE1,
    TransformType::ADDKE2,
    TransformType::ADDKE3,
    TransformType::ADDKE4,
    TransformType::ADDKE5,
    TransformType::ADDKE6,
    TransformType::ADDKE7,
];

/// The additional key exchanges of one suite: a method for each of the seven transform types, `NONE` where
/// there is none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Additional(pub [Ke; 7]);

impl Additional {
    /// None at all.
    pub const NONE: Self = Self([Ke::NONE; 7]);

    /// Those of a proposal that was chosen.
    pub fn of(chosen: &Proposal) -> Self {
        Self(KINDS.map(|kind| chosen.of_kind(kind).next().map_or(Ke::NONE, |t| Ke(t.id))))
    }

    /// The methods, in the order in which they are done.
    pub fn methods(&self) -> impl DoubleEndedIterator<Item = Ke> + '_ {
        self.0.iter().copied().filter(|ke| *ke != Ke::NONE)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::NONE
    }

    /// The transforms that stand for it; none for the types that are not used.
    pub fn transforms(&self) -> impl Iterator<Item = Transform> + '_ {
        let used = KINDS.iter().zip(&self.0).filter(|(_, ke)| **ke != Ke::NONE);
        used.map(|(kind, ke)| Transform::new(*kind, ke.0))
    }

    /// Whether no method stands there twice (RFC 9370 2.2.1).
    pub fn distinct(&self) -> bool {
        let methods: Vec<_> = self.methods().collect();
        (1..methods.len()).all(|n| !methods[..n].contains(&methods[n]))
    }

    /// Whether a proposal leads to this.
    pub fn fits(&self, proposal: &Proposal) -> bool {
        KINDS.iter().zip(&self.0).all(|(kind, ke)| match *ke {
            Ke::NONE => goes_without(proposal, *kind),
            ke => proposal.transforms.contains(&Transform::new(*kind, ke.0)),
        })
    }
}

/// Whether a transform type is one of an additional key exchange.
pub fn is_additional(kind: TransformType) -> bool {
    KINDS.contains(&kind)
}

/// Whether a proposal asks for an additional key exchange, or would do one.
pub fn asks(proposal: &Proposal) -> bool {
    proposal.additional_kes().any(|(_, t)| t.id != Ke::NONE.0)
}

/// Whether a proposal does without this type.
pub fn goes_without(proposal: &Proposal, kind: TransformType) -> bool {
    !proposal.has(kind) || proposal.transforms.contains(&Transform::new(kind, Ke::NONE.0))
}

/// One transform for each type that both have, by our preference, no method twice, nor the `first` key
/// exchange's again (RFC 9370 2.2.1); `None` if there is no such choice. Without a first one there
/// can be no additional one.
pub(crate) fn pick(
    own: &Proposal,
    theirs: &Proposal,
    first: Option<Ke>,
    provider: &dyn Provider,
) -> Option<Vec<Transform>> {
    let sides = Sides { own, theirs, provider };
    match first.filter(|ke| *ke != Ke::NONE) {
        Some(first) => sides.assign(&KINDS, &mut vec![first.0]),
        None => KINDS.iter().map(|kind| sides.without(*kind)).collect::<Option<Vec<_>>>(),
    }
    .map(|all| all.into_iter().flatten().collect())
}

struct Sides<'a> {
    own: &'a Proposal,
    theirs: &'a Proposal,
    provider: &'a dyn Provider,
}

impl Sides<'_> {
    /// Tries every choice until one leaves something for the types after it.
    fn assign(
        &self,
        kinds: &[TransformType],
        taken: &mut Vec<u16>,
    ) -> Option<Vec<Option<Transform>>> {
        let Some((kind, rest)) = kinds.split_first() else { return Some(Vec::new()) };
        for transform in self.own.of_kind(*kind) {
            if taken.contains(&transform.id) || !self.common(transform) {
                continue;
            }
            taken.push(transform.id);
            if let Some(mut chosen) = self.assign(rest, taken) {
                chosen.insert(0, Some(transform.clone()));
                return Some(chosen);
            }
            taken.pop();
        }
        let none = self.without(*kind)?;
        let mut chosen = self.assign(rest, taken)?;
        chosen.insert(0, none);
        Some(chosen)
    }

    fn common(&self, transform: &Transform) -> bool {
        transform.id != Ke::NONE.0
            && self.provider.has_kx(Ke(transform.id))
            && self.theirs.transforms.contains(transform)
    }

    /// Neither does this one: NONE is answered where it was named.
    fn without(&self, kind: TransformType) -> Option<Option<Transform>> {
        let agreed = goes_without(self.own, kind) && goes_without(self.theirs, kind);
        agreed.then(|| self.theirs.has(kind).then(|| Transform::new(kind, Ke::NONE.0)))
    }
}
