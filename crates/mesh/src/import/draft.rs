//! What has been understood so far.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use wire::identity::Identity;

use super::{Error, Imported, Note, emit};
use crate::manifest::{Manifest, NoFiles, Options};

/// Credentials that take the place of what the files say of theirs.
#[derive(Clone, Default)]
pub struct Given {
    /// Value of `instance_certificate`, such as `file:PATH`.
    pub certificate: Option<String>,
    /// Of `instance_private_key`.
    pub key: Option<String>,
    /// Of `ca_certificates`.
    pub ca: Option<String>,
    /// Of `psk`.
    pub psk: Option<String>,
}

/// One of `policies`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Exception {
    pub(super) action: &'static str,
    pub(super) proto: Option<String>,
    pub(super) local_port: Option<String>,
    pub(super) remote_port: Option<String>,
    pub(super) remote: Option<IpNet>,
    pub(super) direction: &'static str,
    pub(super) name: Option<String>,
    /// Higher ones are looked at first.
    pub(super) priority: i64,
}

impl Exception {
    /// Whether it takes every packet, but for what `remote` says.
    fn is_wide(&self) -> bool {
        let any = |proto: &str| {
            ["", "any", "all"].contains(&proto) || proto.trim().parse::<u8>() == Ok(0)
        };
        self.proto.as_deref().is_none_or(any)
            && self.local_port.is_none()
            && self.remote_port.is_none()
    }
}

/// One of `peers`.
#[derive(Clone, Default)]
pub(super) struct Peer {
    pub(super) name: Option<String>,
    pub(super) id: Option<String>,
    pub(super) psk: Option<String>,
    pub(super) ike: Vec<String>,
    pub(super) esp: Vec<String>,
    pub(super) eager: bool,
}

/// The manifest in the making.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) given: Given,
    pub(super) protected: Vec<IpNet>,
    pub(super) clear: Vec<IpNet>,
    pub(super) exceptions: Vec<Exception>,
    pub(super) peers: BTreeMap<IpAddr, Peer>,
    pub(super) psk: Option<String>,
    pub(super) ike: Vec<String>,
    pub(super) esp: Vec<String>,
    /// `transport` or `tunnel`, and whether both were seen.
    pub(super) mode: Option<&'static str>,
    /// Properties with one value, as written in YAML.
    pub(super) plain: BTreeMap<&'static str, String>,
    /// Files that are to be read as well, with the line that names them.
    pub(super) includes: Vec<(usize, String)>,
    /// Exceptions that let everything pass, until it is known what is protected.
    wide: Vec<(Note, Exception)>,
    file: String,
    notes: Vec<Note>,
}

impl Draft {
    pub(super) fn new(given: Given) -> Self {
        Self { given, ..Self::default() }
    }

    /// Notes are of this file from now on.
    pub(super) fn begin(&mut self, file: &str) {
        file.clone_into(&mut self.file);
    }

    /// A remark; the same one only once for each file and line.
    pub(super) fn note(&mut self, line: usize, text: impl Into<String>) {
        let note = Note { file: self.file.clone(), line, text: text.into() };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Of the whole of it.
    pub(super) fn remark(&mut self, text: impl Into<String>) {
        let note = Note { file: String::new(), line: 0, text: text.into() };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Traffic with this network is protected. Everything and nothing are no networks.
    pub(super) fn protect(&mut self, net: IpNet) {
        let net = net.trunc();
        if net.prefix_len() > 0 && !self.protected.contains(&net) {
            self.protected.push(net);
        }
    }

    /// Adds an exception for packets with this host's addresses in `local`; the same for both directions are one.
    pub(super) fn except(&mut self, line: usize, local: Option<IpNet>, new: Exception) {
        if let Some(local) = local {
            let text = format!(
                "the rule is for {local} on this side; in `policies` it is for every host of the fleet"
            );
            self.note(line, text);
        }
        if new.action == "pass" && new.is_wide() {
            let file = self.file.clone();
            self.wide.push((Note { file, line, text: String::new() }, new));
            return;
        }
        self.add(new);
    }

    fn add(&mut self, new: Exception) {
        let twin = self.exceptions.iter_mut().find(|old| {
            let direction = old.direction;
            Exception { direction, name: old.name.clone(), ..new.clone() } == **old
        });
        match twin {
            Some(old) if old.direction != new.direction => old.direction = "both",
            Some(_) => {}
            None => self.exceptions.push(new),
        }
    }

    /// The mode of a tunnel; the manifest has one for all.
    pub(super) fn mode(&mut self, line: usize, mode: &'static str) {
        match self.mode {
            Some(first) if first != mode => {
                let text = format!(
                    "`{mode}` here and `{first}` elsewhere: a manifest has one mode, {first} is taken"
                );
                self.note(line, text);
            }
            _ => self.mode = Some(mode),
        }
    }

    /// A property with one value; another one later on is noted.
    pub(super) fn set(&mut self, line: usize, name: &'static str, value: impl Into<String>) {
        let value = value.into();
        match self.plain.get(name) {
            Some(first) if *first != value => {
                let text = format!(
                    "`{name}: {value}` here and `{first}` elsewhere: a manifest has one, {first} is taken"
                );
                self.note(line, text);
            }
            _ => drop(self.plain.insert(name, value)),
        }
    }

    /// A suite for all, unless it is there.
    pub(super) fn suite(list: &mut Vec<String>, suite: Option<String>) {
        if let Some(suite) = suite.filter(|suite| !list.contains(suite)) {
            list.push(suite);
        }
    }

    /// The manifest, which is read back: it is one.
    pub(super) fn finish(mut self) -> Result<Imported, Error> {
        if self.protected.is_empty() && self.exceptions.iter().all(|e| e.action != "protect") {
            return Err(Error::Nothing);
        }
        self.spell_identities();
        self.admit_wide();
        // The order of the lines among those of one priority.
        self.exceptions.sort_by_key(|exception| std::cmp::Reverse(exception.priority));
        let without =
            self.psk.is_none() && self.given.psk.is_none() && self.given.certificate.is_none();
        if without {
            self.remark("no credentials are taken over: give `--certificate`, `--key` and `--ca`, or `--psk`, or fill in the lines that are commented out");
        }
        let manifest = emit::yaml(&self);
        let options = Options { ignore_credentials: true };
        match Manifest::parse_with("the manifest", &manifest, &NoFiles, options) {
            Ok((_, findings)) => {
                for finding in findings {
                    self.remark(format!("{}: {}", finding.message, finding.remedy));
                }
            }
            Err(found) => {
                self.remark(format!("`warren check` will refuse this:\n{}", found.render()))
            }
        }
        Ok(Imported { manifest, notes: self.notes })
    }

    /// `policies` come before the subnets: one that lets everything pass would take the packets that are protected.
    fn admit_wide(&mut self) {
        let protected: Vec<IpNet> = {
            let narrow = self.exceptions.iter().filter(|e| e.action == "protect");
            self.protected.iter().copied().chain(narrow.filter_map(|e| e.remote)).collect()
        };
        for (mut note, new) in std::mem::take(&mut self.wide) {
            let overlap =
                |net: IpNet| protected.iter().any(|p| p.contains(&net) || net.contains(p));
            match new.remote {
                Some(net) if !overlap(net) => self.add(new),
                remote => {
                    let towards = remote.map_or("everybody".to_owned(), |net| net.to_string());
                    note.text = format!(
                        "a rule that lets everything with {towards} pass is left out: it would come before what is \
                         protected; where that is meant, name hosts that get no IPsec in no_ipsec_subnets, or add to \
                         `policies` a `pass` with protocol and port"
                    );
                    if !self.notes.contains(&note) {
                        self.notes.push(note);
                    }
                }
            }
        }
    }

    /// Identities as a manifest has them.
    fn spell_identities(&mut self) {
        let mut strange = Vec::new();
        for (address, peer) in &mut self.peers {
            let Some(id) = peer.id.take() else { continue };
            peer.id = Identity::from_text(&id).ok().and_then(|identity| spelled(&identity, &id));
            if peer.id.is_none() {
                strange.push(format!(
                    "the identity `{id}` of {address} has no counterpart: whoever has a certificate of the CA is \
                     accepted there"
                ));
            }
        }
        strange.into_iter().for_each(|text| self.remark(text));
    }
}

fn spelled(identity: &Identity, text: &str) -> Option<String> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Some(match identity {
        Identity::Ipv4(_) | Identity::Ipv6(_) | Identity::Email(_) => text.to_owned(),
        Identity::Fqdn(name) => format!("fqdn:{name}"),
        Identity::DerDn(der) => format!("asn1dn:#{}", hex(der)),
        Identity::KeyId(bytes) => format!("@#{}", hex(bytes)),
        _ => return None,
    })
}
