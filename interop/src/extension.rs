//! Extensions of IKEv2 that both sides are told to use, in the words of each.

use serde::{Deserialize, Serialize};

/// What is asked for beyond the tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Extension {
    /// A post-quantum pre-shared key of this pair, and no IKE SA without it (RFC 8784).
    Ppk,
    /// No child SA in IKE_AUTH (RFC 6023).
    Childless,
}

impl Extension {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Ppk, Self::Childless];

    const PPK: &'static str = "a post-quantum key of the two alone";

    /// Keys of Warren's entry for the peer.
    pub fn manifest(self) -> String {
        match self {
            Self::Ppk => format!("ppk: {}, ppk_id: pair, ppk_required: true", Self::PPK),
            Self::Childless => "childless: force".to_owned(),
        }
    }

    /// Lines of strongSwan's connection.
    pub fn connection(self) -> &'static str {
        match self {
            Self::Ppk => "ppk_id = pair\n  ppk_required = yes",
            Self::Childless => "childless = force",
        }
    }

    /// Lines of strongSwan's secrets.
    pub fn secret(self) -> String {
        match self {
            Self::Ppk => {
                format!("secrets {{ ppk-1 {{ id = pair\n secret = \"{}\" }} }}", Self::PPK)
            }
            Self::Childless => String::new(),
        }
    }
}
