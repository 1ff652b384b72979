//! What a peer takes as proof, as it announces (RFC 9593): SUPPORTED_AUTH_METHODS.
//!
//! The responder announces in IKE_SA_INIT, the initiator in IKE_AUTH; either may in IKE_INTERMEDIATE. A host chooses
//! among the ways of proving itself that it has one that the other takes. Where the peer announces nothing, or
//! nothing that can be read, the choice is made as without it.

use crypto::sign::{self, Scheme};
use wire::payload::{Notify, Payload};
use wire::registry::{AuthMethod, NotifyType};

use crate::config::Auth;
use crate::event::KeyId;

/// Announcements that are kept of one peer.
const MOST: usize = 64;
/// Length octet and method (RFC 9593 3.2.1).
const SHORT: usize = 2;
/// … and the link to a CA (3.2.2).
const LINKED: usize = 3;

/// One way of proving identity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announcement {
    /// The AUTH payload's method.
    pub method: AuthMethod,
    /// Counted from 1, the CA of the sender's CERTREQ that certificates for this must come from; 0: any.
    pub link: u8,
    /// The DER AlgorithmIdentifier of a digital signature; empty where the method says it all.
    pub algorithm: Vec<u8>,
}

/// All that one side announces, in its order of preference.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AuthMethods(pub Vec<Announcement>);

impl AuthMethods {
    /// What this host takes from a peer with whom it is configured to prove itself so.
    pub fn accepted(auth: &Auth) -> Self {
        let plain = |method| Announcement { method, link: 0, algorithm: Vec::new() };
        Self(match auth {
            Auth::Psk(_) => vec![plain(AuthMethod::PSK)],
            Auth::Null => vec![plain(AuthMethod::NULL)],
            Auth::Certificate(_) => {
                let signatures = sign::known_identifiers().map(|algorithm| Announcement {
                    algorithm: algorithm.to_vec(),
                    ..plain(AuthMethod::DIGITAL_SIGNATURE)
                });
                let older = [AuthMethod::ECDSA_256, AuthMethod::ECDSA_384, AuthMethod::ECDSA_521];
                signatures.chain(older.map(plain)).chain([plain(AuthMethod::RSA)]).collect()
            }
        })
    }

    /// The notify.
    pub fn notify(&self) -> Notify {
        let mut data = Vec::new();
        for Announcement { method, link, algorithm } in &self.0 {
            let alone = matches!(*method, AuthMethod::PSK | AuthMethod::NULL | AuthMethod::GSPAM);
            let length = if alone { SHORT } else { LINKED + algorithm.len() };
            let Ok(octet) = u8::try_from(length) else { continue };
            data.extend([octet, method.0]);
            if !alone {
                data.push(*link);
                data.extend(algorithm);
            }
        }
        Notify::new(NotifyType::SUPPORTED_AUTH_METHODS, data)
    }

    /// Reads the data of a notify; what follows an announcement without its length is not read.
    pub fn parse(data: &[u8]) -> Self {
        let (mut rest, mut all) = (data, Vec::new());
        while let Some(length) = rest.first().copied().map(usize::from)
            && length >= SHORT
            && all.len() < MOST
            && let Some((one, more)) = rest.split_at_checked(length)
        {
            all.push(Announcement {
                method: AuthMethod(one[1]),
                link: one.get(SHORT).copied().unwrap_or(0),
                algorithm: one.get(LINKED..).unwrap_or_default().to_vec(),
            });
            rest = more;
        }
        Self(all)
    }

    /// What a message announces; `None`: nothing.
    pub fn find(payloads: &[Payload]) -> Option<Self> {
        let mut all = Vec::new();
        for payload in payloads {
            if let Payload::Notify(notify) = payload
                && notify.kind == NotifyType::SUPPORTED_AUTH_METHODS
            {
                all.extend(Self::parse(&notify.data).0);
            }
        }
        all.truncate(MOST);
        (!all.is_empty()).then_some(Self(all))
    }

    /// Leaves out what is linked to a CA that is none of `own`. `requested` are the CAs of the message's CERTREQ
    /// payloads in their order.
    pub fn of_cas(mut self, requested: &[KeyId], own: &[KeyId]) -> Self {
        self.0.retain(|one| {
            let Some(index) = usize::from(one.link).checked_sub(1) else { return true };
            requested.get(index).is_some_and(|ca| own.contains(ca))
        });
        self
    }

    /// Whether a method is among them.
    pub fn has(&self, method: AuthMethod) -> bool {
        self.0.iter().any(|one| one.method == method)
    }

    /// Whether a signature of this scheme is taken. A digital signature without a named algorithm is any.
    pub fn takes(&self, scheme: Scheme) -> bool {
        self.0.iter().any(|one| match one.method {
            AuthMethod::DIGITAL_SIGNATURE if scheme.algorithm_identifier().is_some() => {
                one.algorithm.is_empty()
                    || Scheme::from_algorithm_identifier(&one.algorithm) == Some(scheme)
            }
            method => Scheme::of_auth_method(method) == Some(scheme),
        })
    }

    /// For people.
    pub fn names(&self) -> String {
        let mut names: Vec<_> = self.0.iter().map(|one| one.method.to_string()).collect();
        names.dedup();
        names.join(", ")
    }
}
